"""One frame's history against the tables that tf2 tests its own cache with."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from apt_policy.core.frame_history import FixedFrame, FrameHistory, FramePose, Gap, multiply, rotate, slerp

UNIT = (0.0, 0.0, 0.0, 1.0)


def _sample(parent: str, x: float = 0.0, quaternion=UNIT) -> FramePose:
    return FramePose(parent, (x, 0.0, 0.0), quaternion)


@pytest.fixture
def history() -> FrameHistory:
    """Ten nanoseconds long."""
    return FrameHistory(10)


def test_samples_are_found_at_their_own_instant_whatever_the_order_of_arrival(rng):
    history = FrameHistory(1000)
    for stamp in rng.permutation(np.arange(1, 100)):
        assert history.insert(int(stamp), _sample(f'frame{stamp}'))
    assert all(history.pose_at(stamp).parent == f'frame{stamp}' for stamp in range(1, 100))


def test_what_is_older_than_the_history_is_refused_and_what_becomes_so_is_dropped(history):
    for stamp in (1, 11, 6, 4):
        assert history.insert(stamp, _sample('a'))
    assert history.oldest_ns == 1
    assert history.insert(16, _sample('a'))
    assert history.oldest_ns == 6
    assert history.newest_ns == 16
    assert not history.insert(5, _sample('b'))
    assert history.insert(6, _sample('b'))
    assert history.pose_at(6).parent == 'b'


def test_the_last_of_several_samples_of_one_instant_counts(history):
    for parent in 'abc':
        history.insert(8, _sample(parent))
    assert history.pose_at(8).parent == 'c'


def test_repeating_a_sample_adds_nothing(history):
    for _ in range(100):
        history.insert(1, _sample('a'))
    history.insert(2, _sample('a', 1.0))
    assert history.pose_at(2) == _sample('a', 1.0)
    assert history.newest_ns == 2
    assert history.oldest_ns == 1


def test_outside_of_its_samples_a_history_says_why_it_is_silent(history):
    assert history.pose_at(5) is Gap.EMPTY
    history.insert(5, _sample('a'))
    assert history.pose_at(5) == _sample('a')
    assert history.pose_at(6) is Gap.ONLY_ONE
    assert history.pose_at(4) is Gap.ONLY_ONE
    history.insert(7, _sample('a'))
    assert history.pose_at(8) is Gap.FUTURE
    assert history.pose_at(4) is Gap.PAST


def test_translation_is_interpolated_linearly():
    history = FrameHistory(1000)
    history.insert(200, FramePose('a', (1.0, -2.0, 4.0), UNIT))
    history.insert(300, FramePose('a', (3.0, 2.0, 3.0), UNIT))
    for place in range(100):
        expected = np.array([1.0, -2.0, 4.0]) + np.array([2.0, 4.0, -1.0]) * place / 100
        np.testing.assert_allclose(history.pose_at(200 + place).translation, expected, atol=1e-12)


def test_rotation_is_interpolated_as_scipy_does(rng):
    ends = Rotation.random(2, random_state=rng)
    history = FrameHistory(1000)
    for stamp, quaternion in zip((200, 300), ends.as_quat(), strict=True):
        history.insert(stamp, FramePose('a', (0.0, 0.0, 0.0), tuple(quaternion)))
    expected = Slerp([0, 100], ends)
    for place in range(0, 100, 7):
        got = Rotation.from_quat(history.pose_at(200 + place).quaternion)
        assert (got.inv() * expected(place)).magnitude() < 1e-9


def test_nothing_is_interpolated_across_a_change_of_parent():
    history = FrameHistory(1000)
    history.insert(555, _sample('old', 1.0))
    history.insert(655, _sample('new', 2.0))
    for place in range(100):
        assert history.pose_at(555 + place) == _sample('old', 1.0)
    assert history.pose_at(655) == _sample('new', 2.0)


def test_a_fixed_frame_answers_for_any_instant_and_has_no_stamp():
    fixed = FixedFrame(_sample('a', 1.0))
    assert fixed.pose_at(0) == fixed.pose_at(10**18) == fixed.newest() == _sample('a', 1.0)
    assert fixed.newest_ns == 0


def test_quaternion_arithmetic_agrees_with_scipy(rng):
    a, b = Rotation.random(2, random_state=rng)
    product = multiply(tuple(a.as_quat()), tuple(b.as_quat()))
    assert ((a * b).inv() * Rotation.from_quat(product)).magnitude() < 1e-12
    vector = (0.3, -0.7, 2.0)
    np.testing.assert_allclose(rotate(tuple(a.as_quat()), vector), a.apply(vector), atol=1e-12)


@pytest.mark.parametrize('angle', [0.0, 1e-9, 1e-5, 1.0, np.pi - 1e-6])
@pytest.mark.parametrize('sign', [1.0, -1.0])
def test_slerp_takes_the_shorter_arc_at_constant_speed_however_far(angle, sign, rng):
    start = Rotation.random(random_state=rng)
    axis = np.array([0.6, 0.0, -0.8])
    end = start * Rotation.from_rotvec(angle * axis)
    got = slerp(tuple(start.as_quat()), tuple(sign * end.as_quat()), 0.25)
    assert np.linalg.norm(got) == pytest.approx(1.0, abs=1e-12)
    expected = start * Rotation.from_rotvec(0.25 * angle * axis)
    assert (expected.inv() * Rotation.from_quat(got)).magnitude() < 1e-8
