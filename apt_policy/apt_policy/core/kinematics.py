"""Forward kinematics: from joint positions to the end-effector pose in the arm's base.

The chain comes from the contract, so that data with joint positions only (bags of commands, joint
space datasets) gives the same end-effector as TF.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apt_policy.core.contract import Arm, RobotContract
from apt_policy.core.errors import UserError
from apt_policy.core.geometry import make_pose, rotation_from_vector
from apt_policy.core.placement import Chain

Array = NDArray[np.float64]


class KinematicsError(UserError, ValueError):
    """Error of an arm without a chain in the contract; the message says what to add."""


def required_chain(name: str, arm: Arm, without: str) -> Chain:
    """Return the kinematic chain of ``arm``.

    Args:
        name: name of the arm, for the message.
        arm: its part of the contract.
        without: consequence of a missing chain, for the message.

    Raises:
        KinematicsError: the contract has no chain for the arm.
    """
    if arm.chain is None:
        raise KinematicsError(f'arms.{name}.chain is not in the contract, so {without}')
    return arm.chain


class ForwardKinematics:
    """Forward kinematics of one arm of revolute joints."""

    def __init__(self, name: str, arm: Arm) -> None:
        """Read the chain of ``arm``.

        Raises:
            KinematicsError: the contract has no chain for the arm.
        """
        chain = required_chain(name, arm, 'end-effector poses cannot be made of joint '
                               'positions; add the chain (docs/convert.md), or take poses from TF')
        self.joints: tuple[str, ...] = arm.joints
        self._axes = chain.axes
        self._parent_from_joint = [link.place.matrix for link in chain.links]
        self._last_from_ee = chain.ee.matrix

    def base_from_ee(self, positions: ArrayLike) -> Array:
        """Compute poses (..., 4, 4) of joint positions (..., J) [rad], in the order of :attr:`joints`.

        Raises:
            ValueError: the number of joints differs from the chain's.
        """
        angles = np.asarray(positions, np.float64)
        if angles.shape[-1:] != (len(self._axes),):
            raise ValueError(f'joint positions have shape {angles.shape}, expected (..., {len(self._axes)}): '
                             f'{", ".join(self.joints)}')
        turns = rotation_from_vector(angles[..., None] * self._axes)
        pose = np.eye(4)
        for index, parent_from_joint in enumerate(self._parent_from_joint):
            pose = pose @ parent_from_joint @ make_pose(turns[..., index, :, :], np.zeros(3))
        return pose @ self._last_from_ee


def forward_kinematics(contract: RobotContract, arms: Sequence[str] | None = None) -> Mapping[str, ForwardKinematics]:
    """Create the forward kinematics of every arm, or of those named.

    Raises:
        KinematicsError: the contract has no chain for one of them.
    """
    return {name: ForwardKinematics(name, contract.arms[name]) for name in (arms or contract.arms)}
