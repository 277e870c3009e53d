"""Past and future of the arms around a frame."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from apt_policy.core.geometry import make_pose
from apt_training.data.states import future_states, past_states

COUNT = 10
TIMES = 50.0 + 0.1 * np.arange(COUNT)


def line(count=COUNT, step=1.0):
    """(T, 1, 4, 4) poses: x counts the frames, and the arm turns about z by a tenth of it."""
    at = step * np.arange(count)
    poses = make_pose(Rotation.from_rotvec(np.outer(at, (0, 0, 0.1))).as_matrix(), np.outer(at, (1.0, 0, 0)))
    return poses[:, None]


def grip(count=COUNT):
    return np.arange(count)[:, None] / 100.0


def x_of(states):
    return states[:, 0, 3].round(9).tolist()


def test_measured_states_are_read_from_the_next_step_on_and_commands_from_now_on():
    measured = future_states(TIMES, (line(), None), (grip(), None), frame=2, step=0.1, count=4)
    assert x_of(measured) == [3, 4, 5, 6] and measured[:, 0, 16].tolist() == [0.03, 0.04, 0.05, 0.06]
    commanded = future_states(TIMES, (line(), line() + 0), (grip(), grip()), frame=2, step=0.1, count=4)
    assert x_of(commanded) == [2, 3, 4, 5] and commanded[:, 0, 16].tolist() == [0.02, 0.03, 0.04, 0.05]


def test_pose_and_gripper_may_have_labels_of_different_kinds():
    mixed = future_states(TIMES, (line(), None), (grip(), grip()), frame=2, step=0.1, count=2)
    assert x_of(mixed) == [3, 4] and mixed[:, 0, 16].tolist() == [0.02, 0.03]


def test_the_tail_repeats_the_last_state_and_the_front_the_first():
    assert x_of(future_states(TIMES, (line(), None), (grip(), None), frame=7, step=0.1, count=4)) == [8, 9, 9, 9]
    assert x_of(past_states(TIMES, line(), grip(), frame=1, step=0.1, count=4)) == [0, 0, 0, 1]


@pytest.mark.parametrize('gap', [2, 3, 4])
def test_a_step_of_several_frames_skips_those_between(gap):
    times = np.arange(40.0)
    states = future_states(times, (line(40), None), (grip(40), None), frame=5, step=gap, count=5)
    assert x_of(states) == [5 + gap * (k + 1) for k in range(5)]
    assert x_of(past_states(times, line(40), grip(40), frame=20, step=gap, count=3)) == [20 - 2 * gap, 20 - gap, 20]


def test_on_a_frame_the_state_is_that_of_the_frame_to_the_bit():
    noisy = TIMES + 1e-9 * np.random.default_rng(0).normal(size=COUNT)
    states = future_states(noisy, (line(), None), (grip(), None), frame=0, step=0.1, count=9)
    assert np.array_equal(states[:, 0, :16].reshape(-1, 4, 4), line()[1:, 0])
    assert np.array_equal(states[:, 0, 16], grip()[1:, 0])


def test_between_frames_poses_turn_and_move_evenly():
    states = future_states(TIMES, (line(), None), (grip(), None), frame=0, step=0.025, count=4)
    wanted = line(5, step=0.25)[1:, 0]
    assert np.allclose(states[:, 0, :16].reshape(-1, 4, 4), wanted, atol=1e-9)
    assert np.allclose(states[:, 0, 16], [0.0025, 0.005, 0.0075, 0.01])


def test_a_gap_in_the_recording_stays_a_gap():
    kept = [0, 1, 2, 7, 8, 9]
    states = future_states(TIMES[kept], (line()[kept], None), (grip()[kept], None), frame=2, step=0.1, count=6)
    assert np.allclose(states[:, 0, 3], [3, 4, 5, 6, 7, 8], atol=1e-9)


def test_an_episode_of_one_frame_stands_still():
    states = future_states(TIMES[:1], (line(1), None), (grip(1), None), frame=0, step=0.1, count=3)
    assert np.array_equal(states[:, 0, :16].reshape(-1, 4, 4), np.tile(line(1)[0], (3, 1, 1)))
