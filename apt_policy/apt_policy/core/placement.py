"""Calibrated poses and kinematic chains in the robot contract."""

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
            raise ValueError(f'quaternion_xyzw has length {norm:.4f}; expected a unit quaternion')
        return self

    @property
    def matrix(self) -> NDArray[np.float64]:
        """Pose as a (4, 4) matrix."""
        return pose_from_quaternion(self.translation, self.quaternion_xyzw)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Joint:
    """One revolute joint of a chain."""

    place: Placement
    """Pose of the joint at its zero position, in the frame of the previous joint or of the arm's base."""
    axis: Vector3
    """Unit axis in the joint's own frame."""

    @model_validator(mode='after')
    def _unit_axis(self) -> 'Joint':
        if not abs(float(np.linalg.norm(self.axis)) - 1.0) < 1e-6:
            raise ValueError(f'axis is {self.axis}; expected a unit vector')
        return self


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Chain:
    """Kinematic chain from an arm's base to its end-effector."""

    links: tuple[Joint, ...]
    """One joint per entry of :attr:`Arm.joints`, from the base on."""
    ee: Placement
    """Pose of the end-effector in the frame of the last joint."""

    @property
    def axes(self) -> NDArray[np.float64]:
        """(J, 3) unit axes of the joints, normalised because contract files round them."""
        axes = np.array([link.axis for link in self.links])
        return axes / np.linalg.norm(axes, axis=1, keepdims=True)
