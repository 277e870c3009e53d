"""Where things of the robot stand relative to each other, as the contract's file says it.

A fixed placement, and a chain of joints. What stands there is the contract's matter.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, model_validator
from pydantic.dataclasses import dataclass

from apt_policy.core.geometry import pose_from_quaternion

_STRICT = ConfigDict(extra='forbid')

Vector3 = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Placement:
    """A calibrated pose ``parent_from_child``."""

    translation: Vector3
    """[m]."""
    quaternion_xyzw: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)

    @model_validator(mode='after')
    def _unit_quaternion(self) -> 'Placement':
        norm = float(np.linalg.norm(self.quaternion_xyzw))
        if not abs(norm - 1.0) < 1e-3:
            raise ValueError(f'quaternion_xyzw has length {norm:.4f}; a rotation needs 1')
        return self

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The same as a (4, 4) matrix."""
        return pose_from_quaternion(self.translation, self.quaternion_xyzw)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Joint:
    """One revolute joint of a chain."""

    place: Placement
    """Of the joint at its zero, in the frame of the joint before it, or of the arm's base."""
    axis: Vector3
    """Unit, in the joint's own frame."""

    @model_validator(mode='after')
    def _unit_axis(self) -> 'Joint':
        if not abs(float(np.linalg.norm(self.axis)) - 1.0) < 1e-6:
            raise ValueError(f'axis is {self.axis}; expected a unit vector')
        return self


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Chain:
    """From an arm's base to its end-effector."""

    links: tuple[Joint, ...]
    """One per entry of :attr:`Arm.joints`, from the base on."""
    ee: Placement
    """The end-effector in the frame of the last joint."""

    @property
    def axes(self) -> NDArray[np.float64]:
        """(J, 3) axes of the joints, of length 1 to the last bit: files round them."""
        axes = np.array([link.axis for link in self.links])
        return axes / np.linalg.norm(axes, axis=1, keepdims=True)
