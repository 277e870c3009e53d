"""Criteria of a successful demonstration."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from apt_demos.demo.demo_runner import DemoInstruction, DemoResult, InstructionResult
from apt_demos.demo.recording import ArmTrack, IssueCause, Recording, StreamRate
from apt_demos.demo.report import print_conclusion
from apt_demos.demo.run import run_in_real_time

RATE = 50.0


def track(*, seconds=4.0, trail_s=0.02, radius=0.05):
    """Return the track of an arm on a circle of 4 s whose pose lags its target by ``trail_s``."""
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
    assert recording.issues() == []


def test_position_error_of_a_trailing_arm_is_speed_times_delay():
    speed = 0.05 * np.pi / 2
    assert track(trail_s=0.02).position_error == pytest.approx(speed * 0.02, rel=1e-3)


@pytest.mark.parametrize(('change', 'error_text'), [
    ({'arms': {'left': track(radius=0.0)}}, 'no arm moved more than 0 mm'),
    ({'arms': {'left': track(trail_s=1.0)}}, 'arm left has a median tracking error of 71 mm'),
    ({'arms': {'left': track(seconds=0.0)}}, 'arm left received no target'),
    ({'targets_sent': 150, 'holds': {'FAR_FROM_CURRENT': 50}}, 'target rate is 37.5 Hz'),
    ({'targets_sent': 120, 'holds': {'STALE_STREAM': 60, 'INFERENCE_FAILED': 20}}, 'target rate is 30.0 Hz'),
    ({'targets_sent': 0}, 'target rate is 0.0 Hz'),
], ids=['still', 'trailing', 'silent', 'refused', 'failed beside slow', 'dead'])
def test_a_failed_demonstration_says_why(recording, change, error_text):
    failed = dataclasses.replace(recording, **change)
    assert not failed.too_slow
    assert any(error_text in each.text and each.cause is IssueCause.FAULT for each in failed.issues())


@pytest.mark.parametrize(('change', 'words'), [
    ({'holds': {'STALE_STREAM': 30, 'CHUNK_EXPIRED': 20}}, '30 ticks held for STALE_STREAM, 20 ticks held for CHUNK'),
    ({'wall_s': 8.0}, 'real-time factor 0.50, no tick held, so the loop missed ticks'),
    ({'holds': {'NO_CHUNK': 45, 'FAR_FROM_CURRENT': 5}}, '45 ticks held for NO_CHUNK'),
    ({'holds': {'STALE_STREAM': 50}, 'arms': {'left': track(trail_s=1.0)}}, '50 ticks held for STALE_STREAM')])
def test_a_machine_that_was_slow_is_no_failure_of_the_policy(recording, change, words):
    late = dataclasses.replace(recording, targets_sent=150, **change)
    assert late.too_slow
    (only,) = late.issues()
    assert only.cause is IssueCause.SLOW_MACHINE
    assert only.text.startswith('target rate is 37.5 Hz, expected 50.0 Hz as in the contract; ') and words in only.text


def concluded(recordings, speed):
    written = io.StringIO()
    print_conclusion(recordings, Console(file=written, width=200), speed=speed)
    return written.getvalue()


def test_the_conclusion_tells_slow_from_failed_and_from_well_done(recording):
    late = dataclasses.replace(recording, targets_sent=150)
    still = dataclasses.replace(recording, arms={'left': track(radius=0.0)})
    assert concluded([recording], 0.5).startswith('OK: target rate')
    said = concluded([recording, late], 0.5)
    assert said.startswith('TOO SLOW: target rate is 37.5 Hz') and 'DEMO_SPEED=0.25' in said
    assert 'FAILED' not in said and 'OK' not in said
    assert 'close other programs' in concluded([late], 0.1)
    said = concluded([still], 0.5)
    assert said.startswith('FAILED: no arm moved more') and 'SPEED' not in said and 'slow' not in said.lower()


@pytest.mark.parametrize(('keeps_up_at', 'begin', 'tried'), [
    (0.5, 0.5, [0.5]), (0.25, 0.5, [0.5, 0.25]), (0.01, 0.5, [0.5, 0.25]), (0.01, 0.15, [0.15, 0.1]),
    (0.01, 0.1, [0.1])])
def test_a_machine_that_does_not_keep_up_tries_once_more_at_half_the_speed(recording, keeps_up_at, begin, tried):
    speeds, written = [], io.StringIO()

    def run_at_speed(speed):
        speeds.append(speed)
        seen = dataclasses.replace(recording, targets_sent=200 if speed <= keeps_up_at else 150)
        return DemoResult(intrinsics=np.eye(3), results=(
            InstructionResult(instruction=DemoInstruction(prompt='dance'), recording=seen, status=None),))

    result, speed = run_in_real_time(run_at_speed, begin, Console(file=written, width=200))
    assert (speeds, speed) == (tried, tried[-1])
    assert result.results[0].recording.too_slow is (tried[-1] > keeps_up_at)
    said = written.getvalue()
    assert ('does not keep up with speed' in said and f'once more at speed {speed:g}' in said) is (len(tried) == 2)
