"""Gripper joint readings and the opening 0 closed .. 1 open, both ways.

The range of a reading is the contract's; which joint it belongs to is not known here.
"""

from apt_policy.core.contract import GripperRange


def opening_from_reading(reading: float, gripper: GripperRange) -> float:
    """The opening, clipped to 0..1: measured fingers overshoot both ends slightly."""
    opening = (reading - gripper.closed) / (gripper.open - gripper.closed)
    return min(max(opening, 0.0), 1.0)


def reading_from_opening(opening: float, gripper: GripperRange) -> float:
    """The inverse of :func:`opening_from_reading` within the range, in the joint's own unit."""
    return gripper.closed + opening * (gripper.open - gripper.closed)
