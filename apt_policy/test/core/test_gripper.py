"""Readings and openings."""

import pytest

from apt_policy.core.contract import GripperRange
from apt_policy.core.gripper import opening_from_reading, reading_from_opening

RANGES = [GripperRange(joint='left_finger', closed=0.021, open=0.057),
          GripperRange(joint='gripper', closed=1.4910, open=-0.6213)]


@pytest.mark.parametrize('gripper', RANGES)
@pytest.mark.parametrize('opening', [0.0, 0.25, 0.58, 1.0])
def test_opening_and_reading_are_inverses(gripper, opening):
    assert opening_from_reading(reading_from_opening(opening, gripper), gripper) == pytest.approx(opening)


@pytest.mark.parametrize('gripper', RANGES)
def test_the_ends_of_the_range_are_closed_and_open(gripper):
    assert opening_from_reading(gripper.closed, gripper) == 0.0
    assert opening_from_reading(gripper.open, gripper) == 1.0
    assert reading_from_opening(0.0, gripper) == gripper.closed
    assert reading_from_opening(1.0, gripper) == pytest.approx(gripper.open)


@pytest.mark.parametrize('gripper', RANGES)
def test_readings_that_overshoot_are_clipped(gripper):
    width = gripper.open - gripper.closed
    assert opening_from_reading(gripper.closed - 0.1 * width, gripper) == 0.0
    assert opening_from_reading(gripper.open + 0.1 * width, gripper) == 1.0
