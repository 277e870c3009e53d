"""What counts as a demonstration that worked."""

import dataclasses

import numpy as np
import pytest

from apt_demos.demo.recording import ArmTrack, Recording, StreamRate

RATE = 50.0


def track(*, seconds=4.0, trail_s=0.02, radius=0.05):
    """An arm on a circle of 4 s whose pose trails its target by ``trail_s``."""
    stamps = np.arange(0.0, seconds, 1 / RATE)

    def circle(times):
        poses = np.tile(np.eye(4), (len(times), 1, 1))
        poses[:, 0, 3] = radius * np.cos(np.pi * times / 2)
        poses[:, 1, 3] = radius * np.sin(np.pi * times / 2)
        return poses

    return ArmTrack(
        stamp_ns=(stamps * 1e9).astype(np.int64), base_from_target=circle(stamps),
        base_from_reached=circle(stamps - trail_s), gripper=np.ones(len(stamps)))


@pytest.fixture
def recording():
    return Recording(
        control_rate_hz=RATE, duration_s=4.0, wall_s=5.0, arms={'left': track(), 'right': track()},
        targets_sent=200, chunks=9, streams=(StreamRate(stream='cam_high', rate_hz=15.0, expected_hz=15.0),),
        holds={}, latency_s=(0.2, 0.3), inference_s=(0.1, 0.2), frames=())


def test_arms_that_follow_targets_at_the_control_rate_succeed(recording):
    assert recording.shortcomings() == []


def test_position_error_of_a_trailing_arm_is_speed_times_delay():
    speed = 0.05 * np.pi / 2
    assert track(trail_s=0.02).position_error == pytest.approx(speed * 0.02, rel=1e-3)


@pytest.mark.parametrize(('change', 'complaint'), [
    ({'targets_sent': 150}, 'targets flowed at 37.5 Hz'),
    ({'arms': {'left': track(radius=0.0)}}, 'no arm went farther than 0 mm'),
    ({'arms': {'left': track(trail_s=1.0)}}, 'arm left trailed its targets by 71 mm'),
    ({'arms': {'left': track(seconds=0.0)}}, 'arm left received no target'),
], ids=['slow', 'still', 'trailing', 'silent'])
def test_a_failed_demonstration_says_why(recording, change, complaint):
    assert any(complaint in line for line in dataclasses.replace(recording, **change).shortcomings())
