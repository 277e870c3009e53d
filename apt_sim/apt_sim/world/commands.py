"""Validation of commands to the simulated driver.

The real Interbotix driver checks nothing. This one rejects commands that do not fit the arm and names the reason; the
arm then holds its last command.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import Arm, GripperRange
from apt_sim.world.motors import FINGER_OPEN, FINGER_SQUEEZE

ARM_GROUP = 'arm'
# Commands travel as 32-bit floats, which round limits outwards.
_ROUNDING = 1e-5


@dataclass(frozen=True, kw_only=True)
class CommandRejection:
    """Rejected command."""

    reason: str
    """Explanation for the log."""


def arm_command(arm: Arm, group: str, values: Sequence[float]) -> NDArray[np.float64] | CommandRejection:
    """Return the joint positions (J,) [rad] of an interbotix_xs_msgs/JointGroupCommand, or the rejection."""
    if group != ARM_GROUP:
        return CommandRejection(reason=f'joint group is {group!r}, expected {ARM_GROUP!r}')
    if len(values) != len(arm.joints):
        return CommandRejection(reason=f'got {len(values)} positions, expected {len(arm.joints)}: '
                                       f'{", ".join(arm.joints)}')
    joints = np.asarray(values, np.float64)
    lower, upper = np.array(arm.joint_lower), np.array(arm.joint_upper)
    allowed = (joints >= lower - _ROUNDING) & (joints <= upper + _ROUNDING)
    if not allowed.all():
        wrong = int(np.argmin(allowed))
        return CommandRejection(reason=f'{arm.joints[wrong]} is {joints[wrong]:.4f} rad, outside its limits '
                                       f'{lower[wrong]:.4f} .. {upper[wrong]:.4f}')
    return np.clip(joints, lower, upper)


def finger_command(arm: Arm, joint: str, value: float) -> float | CommandRejection:
    """Return the finger position [m] of an interbotix_xs_msgs/JointSingleCommand, or the rejection."""
    gripper = arm.gripper_command
    if joint != gripper.joint:
        return CommandRejection(reason=f'single joint is {joint!r}, expected the gripper {gripper.joint!r}')
    lower, upper = sorted((gripper.closed, gripper.open))
    if not lower - _ROUNDING <= value <= upper + _ROUNDING:
        return CommandRejection(reason=f'{joint} is {value:.4f}, outside its range {lower:.4f} .. {upper:.4f}')
    return finger_from_motor(value, gripper)


def finger_from_motor(reading: float, gripper: GripperRange) -> float:
    """Convert a gripper reading in the unit of gripper commands to a finger position [m]."""
    share = (reading - gripper.closed) / (gripper.open - gripper.closed)
    return FINGER_SQUEEZE + share * (FINGER_OPEN - FINGER_SQUEEZE)


def motor_from_finger(finger: float, gripper: GripperRange) -> float:
    """Convert a finger position [m] to the unit of gripper commands; inverse of :func:`finger_from_motor`."""
    share = (finger - FINGER_SQUEEZE) / (FINGER_OPEN - FINGER_SQUEEZE)
    return gripper.closed + share * (gripper.open - gripper.closed)
