"""Command validation, servos and pacing."""

import math

import numpy as np
import pytest

from apt_policy.core.contract import GripperRange
from apt_sim.world.commands import (
    CommandRejection,
    arm_command,
    finger_command,
    finger_from_motor,
    motor_from_finger,
)
from apt_sim.world.motors import FINGER_OPEN, FINGER_SQUEEZE, Servo
from apt_sim.world.pacing import RateTimer, RealTimePacer

HOME = [0.0, -0.96, 1.16, 0.0, -0.3, 0.0]
MS = 1_000_000


def test_a_command_within_limits_is_obeyed(contract):
    arm = contract.arms['left']
    np.testing.assert_allclose(arm_command(arm, 'arm', HOME), HOME)


def test_limits_survive_the_rounding_of_32_bit_floats(contract):
    arm = contract.arms['left']
    for limit in (arm.joint_lower, arm.joint_upper):
        command = arm_command(arm, 'arm', np.array(limit, np.float32).tolist())
        np.testing.assert_array_equal(np.clip(command, arm.joint_lower, arm.joint_upper), command)


@pytest.mark.parametrize(('group', 'values', 'reason'), [
    ('gripper', HOME, "joint group is 'gripper'"),
    ('', HOME, "joint group is ''"),
    ('arm', HOME[:5], 'got 5 positions, expected 6'),
    ('arm', [], '0 positions'),
    ('arm', [*HOME, 0.0], '7 positions'),
    ('arm', [0.0, math.nan, *HOME[2:]], 'shoulder is nan'),
    ('arm', [math.inf, *HOME[1:]], 'waist is inf'),
    ('arm', [*HOME[:4], 2.5, 0.0], 'wrist_angle is 2.5000 rad, outside its limits -1.8675 .. 2.2340'),
], ids=['other group', 'no group', 'short', 'empty', 'long', 'nan', 'infinite', 'beyond a limit'])
def test_an_invalid_arm_command_is_rejected_with_a_reason(contract, group, values, reason):
    refusal = arm_command(contract.arms['left'], group, values)
    assert isinstance(refusal, CommandRejection)
    assert reason in refusal.reason


@pytest.mark.parametrize(('joint', 'value', 'reason'), [
    ('waist', 0.03, "single joint is 'waist'"), ('gripper', math.nan, 'gripper is nan'),
    ('gripper', math.inf, 'gripper is inf'),
    ('gripper', 0.5, 'gripper is 0.5000, outside its range 0.0210 .. 0.0570'), ('gripper', -0.03, 'outside')])
def test_an_invalid_gripper_command_is_rejected_with_a_reason(contract, joint, value, reason):
    refusal = finger_command(contract.arms['left'], joint, value)
    assert isinstance(refusal, CommandRejection)
    assert reason in refusal.reason


@pytest.mark.parametrize('gripper', [
    GripperRange(joint='gripper', closed=0.021, open=0.057),
    GripperRange(joint='gripper', closed=0.6197, open=1.6214),
    GripperRange(joint='gripper', closed=1.0, open=-1.0)], ids=['metres', 'radians', 'reversed'])
def test_gripper_units_of_the_contract_reach_both_ends_of_the_fingers(gripper):
    assert finger_from_motor(gripper.closed, gripper) == pytest.approx(FINGER_SQUEEZE)
    assert finger_from_motor(gripper.open, gripper) == pytest.approx(FINGER_OPEN)
    assert motor_from_finger(finger_from_motor(0.3, gripper), gripper) == pytest.approx(0.3)


@pytest.fixture
def servo():
    return Servo(lower=np.array([-1.0]), upper=np.array([1.0]), velocity=2.0, damping_s=0.03, period_s=0.02)


def test_a_stream_of_commands_is_led_by_its_velocity(servo):
    for tick in range(5):
        servo.set_command(np.array([0.01 * tick]), 0.02 * tick)
    # 0.5 rad/s times 30 ms of damping and half a period.
    assert servo.set_point(0.085) == pytest.approx([0.04 + 0.5 * 0.04])


def test_a_stream_that_ends_is_led_no_further(servo):
    servo.set_command(np.array([0.0]), 0.0)
    servo.set_command(np.array([0.01]), 0.02)
    assert servo.set_point(0.12) == pytest.approx([0.01])


def test_a_command_that_comes_late_does_not_jerk_the_arm(servo):
    """A delay of the sender: the set point neither falls back meanwhile nor overshoots afterwards."""
    for tick in range(5):
        servo.set_command(np.array([0.01 * tick]), 0.02 * tick)
    before = servo.set_point(0.08)
    assert servo.set_point(0.15) == pytest.approx(before)
    servo.set_command(np.array([0.08]), 0.16)
    assert servo.set_point(0.16) == pytest.approx([0.08 + 0.5 * 0.04])


def test_a_single_command_is_not_led(servo):
    servo.set_command(np.array([0.5]), 1.0)
    assert servo.set_point(1.0) == pytest.approx([0.5])


def test_the_lead_keeps_to_joint_and_velocity_limits(servo):
    servo.set_command(np.array([0.5]), 0.0)
    servo.set_command(np.array([0.9]), 0.02)
    assert servo.set_point(0.02) == pytest.approx([0.9 + 2.0 * 0.04])
    servo.set_command(np.array([1.0]), 0.04)
    assert servo.set_point(0.04) == pytest.approx([1.0])


def test_a_beat_comes_at_its_rate_on_ticks_that_do_not_divide_it():
    beat = RateTimer(15.0, start_ns=20 * MS)
    instants = [t for t in range(0, 2000, 10) if beat.due(t * MS)]
    assert instants[0] == 20 and len(instants) == 30
    assert np.diff(instants).min() >= 60 and np.diff(instants).max() <= 70


def test_beats_that_were_missed_are_dropped():
    beat = RateTimer(100.0)
    assert beat.due(0)
    assert beat.due(95 * MS)
    assert not beat.due(95 * MS)
    assert beat.due(100 * MS)


def test_pace_keeps_simulated_time_at_its_share_of_wall_time():
    pacer = RealTimePacer(0.5, wall_ns=100 * MS, sim_ns=0)
    assert pacer.wait_s(100 * MS, 10 * MS) == pytest.approx(0.02)
    assert pacer.wait_s(120 * MS, 10 * MS) == 0.0
    assert pacer.real_time_factor(120 * MS, 10 * MS) == pytest.approx(0.5)


def test_a_short_delay_is_made_up_for_and_a_long_one_is_not():
    pacer = RealTimePacer(1.0, wall_ns=0, sim_ns=0)
    assert pacer.wait_s(40 * MS, 10 * MS) == 0.0
    assert pacer.wait_s(41 * MS, 60 * MS) == pytest.approx(0.019)
    assert pacer.wait_s(5000 * MS, 60 * MS) == 0.0
    assert pacer.wait_s(5000 * MS, 150 * MS) == pytest.approx(0.04)


def test_a_slow_machine_shows_in_the_factor():
    pacer = RealTimePacer(1.0, wall_ns=0, sim_ns=0)
    assert pacer.real_time_factor(1000 * MS, 300 * MS) == pytest.approx(0.3)
    assert pacer.real_time_factor(2000 * MS, 1300 * MS) == pytest.approx(1.0)
