"""Which commands the simulated driver obeys.

The real Interbotix driver checks nothing. This one refuses what would not be a movement of this arm,
says why, and leaves the arm at its last command. Plain values; messages stay outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import Arm, GripperRange
from apt_sim.world.physics import FINGER_OPEN, FINGER_SQUEEZE

ARM_GROUP = 'arm'
# Commands travel as 32-bit floats, which round limits outwards.
_ROUNDING = 1e-5


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A command that is not obeyed, in words."""

    reason: str


def arm_command(arm: Arm, group: str, values: Sequence[float]) -> NDArray[np.float64] | Refusal:
    """Joint positions (J,) [rad] of an interbotix_xs_msgs/JointGroupCommand."""
    if group != ARM_GROUP:
        return Refusal(reason=f'there is no joint group {group!r}; the arm is {ARM_GROUP!r}')
    if len(values) != len(arm.joints):
        return Refusal(reason=f'{len(values)} positions for {len(arm.joints)} joints, '
                              f'which are {", ".join(arm.joints)}')
    joints = np.asarray(values, np.float64)
    lower, upper = np.array(arm.joint_lower), np.array(arm.joint_upper)
    allowed = (joints >= lower - _ROUNDING) & (joints <= upper + _ROUNDING)
    if not allowed.all():
        wrong = int(np.argmin(allowed))
        return Refusal(reason=f'{arm.joints[wrong]} to {joints[wrong]:.4f} rad, outside '
                              f'{lower[wrong]:.4f} .. {upper[wrong]:.4f}')
    return np.clip(joints, lower, upper)


def finger_command(arm: Arm, joint: str, value: float) -> float | Refusal:
    """Finger position [m] of an interbotix_xs_msgs/JointSingleCommand to the gripper."""
    gripper = arm.gripper_command
    if joint != gripper.joint:
        return Refusal(reason=f'there is no single joint {joint!r} to command; '
                              f'the gripper is {gripper.joint!r}')
    lower, upper = sorted((gripper.closed, gripper.open))
    if not lower - _ROUNDING <= value <= upper + _ROUNDING:
        return Refusal(reason=f'{joint} to {value:.4f}, outside {lower:.4f} .. {upper:.4f}')
    return finger_from_motor(value, gripper)


def finger_from_motor(reading: float, gripper: GripperRange) -> float:
    """Finger position [m] of a reading in the unit of gripper commands; the ends are those of the fingers."""
    share = (reading - gripper.closed) / (gripper.open - gripper.closed)
    return FINGER_SQUEEZE + share * (FINGER_OPEN - FINGER_SQUEEZE)


def motor_from_finger(finger: float, gripper: GripperRange) -> float:
    """The inverse of :func:`finger_from_motor`."""
    share = (finger - FINGER_SQUEEZE) / (FINGER_OPEN - FINGER_SQUEEZE)
    return gripper.closed + share * (gripper.open - gripper.closed)
