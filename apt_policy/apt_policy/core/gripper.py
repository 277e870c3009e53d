"""Conversion between gripper joint readings and the opening 0 closed .. 1 open."""

from apt_policy.core.contract import GripperRange


def opening_from_reading(reading: float, gripper: GripperRange) -> float:
    """Convert a joint reading to the opening, clipped to 0..1 because measured fingers overshoot both ends slightly."""
    opening = (reading - gripper.closed) / (gripper.open - gripper.closed)
    return min(max(opening, 0.0), 1.0)


def reading_from_opening(opening: float, gripper: GripperRange) -> float:
    """Convert an opening 0..1 to a reading in the joint's unit; the inverse of :func:`opening_from_reading`."""
    return gripper.closed + opening * (gripper.open - gripper.closed)
