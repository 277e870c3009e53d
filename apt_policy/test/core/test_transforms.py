"""The transform buffer: tf2's semantics, checked against scipy and plain matrix products."""

import threading
import time

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from apt_policy.core.geometry import pose_to_quaternion
from apt_policy.core.transforms import (
    LATEST,
    ExtrapolationError,
    StampedTransform,
    TransformBuffer,
    TransformError,
    TransformRefusedError,
    UnconnectedError,
    UnknownFrameError,
)

SECOND = 1_000_000_000


def _link(parent: str, child: str, stamp_s: float, pose: np.ndarray | None = None) -> StampedTransform:
    translation, quaternion = pose_to_quaternion(np.eye(4) if pose is None else pose)
    return StampedTransform(parent=parent, child=child, stamp_ns=round(stamp_s * SECOND),
                            translation=tuple(translation.tolist()),
                            quaternion_xyzw=tuple(quaternion.tolist()))


def _at(x: float) -> np.ndarray:
    pose = np.eye(4)
    pose[0, 3] = x
    return pose


@pytest.fixture
def buffer() -> TransformBuffer:
    return TransformBuffer()


def test_a_chain_composes_in_both_directions(buffer, random_poses):
    poses = random_poses(3)
    for pose, parent, child in zip(poses, 'abc', 'bcd', strict=True):
        buffer.set_transform(_link(parent, child, 1.0, pose))
    expected = poses[0] @ poses[1] @ poses[2]
    np.testing.assert_allclose(buffer.lookup('a', 'd', SECOND), expected, atol=1e-12)
    np.testing.assert_allclose(buffer.lookup('d', 'a', SECOND), np.linalg.inv(expected), atol=1e-12)
    np.testing.assert_allclose(buffer.lookup('b', 'c', LATEST), poses[1], atol=1e-12)


def test_frames_of_two_branches_meet_in_their_common_ancestor(buffer, random_poses):
    root_a, a_b, root_c, world_root = random_poses(4)
    buffer.set_transform(_link('root', 'a', 1.0, root_a))
    buffer.set_transform(_link('a', 'b', 1.0, a_b))
    buffer.set_static_transform(_link('root', 'c', 0.0, root_c))
    buffer.set_transform(_link('world', 'root', 7.0, world_root))
    expected = np.linalg.inv(root_c) @ root_a @ a_b
    # The link above the common ancestor knows nothing of that instant, and need not.
    np.testing.assert_allclose(buffer.lookup('c', 'b', SECOND), expected, atol=1e-12)
    np.testing.assert_allclose(buffer.lookup('c', 'b', LATEST), expected, atol=1e-12)


def test_between_samples_translation_is_linear_and_rotation_slerped(buffer, random_poses):
    start, end = random_poses(2)
    buffer.set_transform(_link('a', 'b', 1.0, start))
    buffer.set_transform(_link('a', 'b', 2.0, end))
    slerp = Slerp([0, 1], Rotation.from_matrix(np.stack([start[:3, :3], end[:3, :3]])))
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        pose = buffer.lookup('a', 'b', round((1 + share) * SECOND))
        np.testing.assert_allclose(pose[:3, 3], (1 - share) * start[:3, 3] + share * end[:3, 3], atol=1e-12)
        np.testing.assert_allclose(pose[:3, :3], slerp(share).as_matrix(), atol=1e-9)


def test_latest_means_the_newest_instant_that_all_links_know(buffer):
    for stamp in (1.0, 2.0, 3.0):
        buffer.set_transform(_link('a', 'b', stamp, _at(stamp)))
    for stamp in (1.0, 2.5):
        buffer.set_transform(_link('b', 'c', stamp, _at(10 * stamp)))
    buffer.set_static_transform(_link('c', 'd', 0.0, _at(100)))
    assert buffer.latest_common_ns('a', 'd') == buffer.latest_common_ns('d', 'a') == 2.5 * SECOND
    assert buffer.lookup('a', 'd', LATEST)[0, 3] == pytest.approx(2.5 + 25 + 100)


def test_static_links_hold_at_any_instant_and_have_no_latest_one(buffer):
    buffer.set_static_transform(_link('a', 'b', 5.0, _at(2)))
    assert buffer.lookup('a', 'b', 1)[0, 3] == buffer.lookup('a', 'b', 10**18)[0, 3] == 2
    assert buffer.latest_common_ns('a', 'b') == 0


def test_a_frame_in_itself_is_the_identity_even_if_unknown(buffer):
    np.testing.assert_array_equal(buffer.lookup('x', 'x', 5), np.eye(4))
    assert buffer.latest_common_ns('x', 'x') == 0


def test_one_sample_answers_for_its_own_instant_only(buffer):
    buffer.set_transform(_link('foo', 'bar', 2.0))
    buffer.lookup('foo', 'bar', 2 * SECOND)
    with pytest.raises(ExtrapolationError, match=r'foo <- bar at 4.000000 s.*known at 2.000000 s only'):
        buffer.lookup('foo', 'bar', 4 * SECOND)


def test_extrapolation_errors_name_both_frames_and_both_instants(buffer):
    buffer.set_transform(_link('foo', 'bar', 2.0))
    buffer.set_transform(_link('foo', 'bar', 3.0))
    with pytest.raises(ExtrapolationError,
                       match=r'foo <- bar at 4.000000 s: .*future: the newest data .* 3.000000 s'):
        buffer.lookup('foo', 'bar', 4 * SECOND)
    with pytest.raises(ExtrapolationError,
                       match=r'bar <- foo at 1.000000 s: .*past: the oldest data .* 2.000000 s'):
        buffer.lookup('bar', 'foo', SECOND)


def test_unknown_frames_are_named_beside_the_known_ones(buffer):
    with pytest.raises(UnknownFrameError, match=r"frame 'a' was never published; known frames are none"):
        buffer.lookup('a', 'b', SECOND)
    buffer.set_transform(_link('foo', 'child', 1.0))
    with pytest.raises(UnknownFrameError, match=r"frame 'bar' was never published; known frames are child, foo"):
        buffer.lookup('foo', 'bar', SECOND)


def test_frames_in_different_trees_are_an_error_that_names_both(buffer):
    buffer.set_transform(_link('a', 'b', 1.0))
    buffer.set_transform(_link('c', 'd', 1.0))
    for ask in (lambda: buffer.lookup('b', 'd', SECOND), lambda: buffer.lookup('b', 'd', LATEST),
                lambda: buffer.latest_common_ns('b', 'd')):
        with pytest.raises(UnconnectedError, match=r'b <- d: .*different trees'):
            ask()


def test_frames_in_a_loop_are_an_error_and_not_a_hang(buffer):
    for parent, child in ('ab', 'bc', 'ca'):
        buffer.set_transform(_link(parent, child, 1.0))
    buffer.set_static_transform(_link('root', 'other', 0.0))
    for stamp in (LATEST, SECOND):
        with pytest.raises(TransformError, match='loop'):
            buffer.lookup('other', 'a', stamp)


def test_a_frame_may_change_its_parent_and_the_past_remembers_the_old_one(buffer):
    buffer.set_static_transform(_link('world', 'left', 0.0, _at(10)))
    buffer.set_static_transform(_link('world', 'right', 0.0, _at(20)))
    for stamp, parent in ((1.0, 'left'), (2.0, 'left'), (3.0, 'right'), (4.0, 'right')):
        buffer.set_transform(_link(parent, 'cube', stamp, _at(stamp)))
    where = {stamp: buffer.lookup('world', 'cube', round(stamp * SECOND))[0, 3]
             for stamp in (1.5, 2.0, 2.9, 3.0, 3.5)}
    assert where == pytest.approx({1.5: 11.5, 2.0: 12.0, 2.9: 12.0, 3.0: 23.0, 3.5: 23.5})


@pytest.mark.parametrize(('change', 'message'), [
    ({'translation': (np.nan, 0.0, 0.0)}, "'a' -> 'b' .*must be finite"),
    ({'translation': (0.0, np.inf, 0.0)}, 'must be finite'),
    ({'quaternion_xyzw': (np.nan, 0.0, 0.0, 1.0)}, 'must be finite'),
    ({'quaternion_xyzw': (0.0, 0.0, 0.0, 0.0)}, 'length 0.0000, expected 1'),
    ({'quaternion_xyzw': (0.0, 0.0, 0.0, 1.01)}, 'length 1.0100, expected 1'),
    ({'child': ''}, 'frame name is empty'), ({'parent': ''}, 'frame name is empty'), ({'child': '/a'}, 'same frame')])
@pytest.mark.parametrize('method', ['set_transform', 'set_static_transform'])
def test_bad_transforms_are_refused_by_name_and_leave_no_trace(change, message, method, buffer):
    fields = {'parent': 'a', 'child': 'b', 'stamp_ns': SECOND, 'translation': (0.0, 0.0, 0.0),
              'quaternion_xyzw': (0.0, 0.0, 0.0, 1.0)} | change
    with pytest.raises(TransformRefusedError, match=message):
        getattr(buffer, method)(StampedTransform(**fields))
    with pytest.raises(UnknownFrameError):
        buffer.lookup('a', 'b', LATEST)


def test_a_quaternion_within_tf2s_tolerance_is_taken_and_normalised(buffer):
    buffer.set_transform(StampedTransform(parent='a', child='b', stamp_ns=1, translation=(0.0, 0.0, 0.0),
                                          quaternion_xyzw=(0.0, 0.0, 1.004, 0.0)))
    np.testing.assert_allclose(buffer.lookup('a', 'b', LATEST), np.diag([-1.0, -1, 1, 1]), atol=1e-12)


def test_leading_slashes_are_dropped(buffer):
    buffer.set_transform(_link('/a', '/b', 1.0, _at(1)))
    assert buffer.lookup('a', 'b', LATEST)[0, 3] == 1


def test_ten_seconds_are_remembered_and_older_data_is_refused_with_the_cure(buffer):
    for stamp in np.arange(1.0, 15.5, 0.5):
        buffer.set_transform(_link('a', 'b', stamp, _at(stamp)))
    assert buffer.lookup('a', 'b', 5 * SECOND)[0, 3] == 5
    with pytest.raises(ExtrapolationError, match=r'oldest data .* 5.000000 s'):
        buffer.lookup('a', 'b', 4 * SECOND)
    with pytest.raises(TransformRefusedError, match=r'a -> b at 4.5.* older than the 10 s .*clear'):
        buffer.set_transform(_link('a', 'b', 4.5))


def test_clearing_forgets_motion_and_keeps_static_frames(buffer):
    buffer.set_transform(_link('a', 'b', 100.0, _at(1)))
    buffer.set_static_transform(_link('b', 'c', 0.0, _at(2)))
    buffer.clear()
    assert buffer.lookup('b', 'c', SECOND)[0, 3] == 2
    with pytest.raises(ExtrapolationError, match='since the buffer was cleared'):
        buffer.lookup('a', 'b', 100 * SECOND)
    buffer.set_transform(_link('a', 'b', 1.0, _at(7)))
    assert buffer.lookup('a', 'c', SECOND)[0, 3] == 9


def test_a_frame_turns_static_or_moving_with_the_newest_message(buffer):
    buffer.set_transform(_link('a', 'b', 1.0, _at(1)))
    buffer.set_static_transform(_link('a', 'b', 2.0, _at(2)))
    assert buffer.lookup('a', 'b', 50 * SECOND)[0, 3] == 2
    buffer.set_transform(_link('a', 'b', 3.0, _at(3)))
    with pytest.raises(ExtrapolationError):
        buffer.lookup('a', 'b', 50 * SECOND)


def test_a_random_tree_agrees_with_matrix_products(buffer, random_poses, rng):
    world = {'f0': np.eye(4)}
    for i in range(1, 25):
        parent, pose = f'f{rng.integers(i)}', random_poses()
        world[f'f{i}'] = world[parent] @ pose
        method = buffer.set_static_transform if i % 3 == 0 else buffer.set_transform
        method(_link(parent, f'f{i}', 1.0, pose))
    for _ in range(60):
        a, b = (f'f{i}' for i in rng.integers(25, size=2))
        np.testing.assert_allclose(buffer.lookup(a, b, SECOND), np.linalg.inv(world[a]) @ world[b],
                                   atol=1e-10)


def test_one_thread_may_write_while_another_looks_up(buffer):
    """Both links carry their own stamp as x, so a torn or mixed answer shows."""
    failures: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                x = buffer.lookup('a', 'c', LATEST)[0, 3]
                newest = buffer.latest_common_ns('a', 'c') / SECOND
            except TransformError:
                continue
            if x > 2 * newest + 1e-6 or abs(x / 2 - round(x * 50) / 100) > 1e-6:
                failures.append(f'x {x} at {newest}')

    reader = threading.Thread(target=read)
    reader.start()
    deadline = time.monotonic() + 0.3
    step = 0
    while time.monotonic() < deadline:
        step += 1
        buffer.set_transform(_link('a', 'b', step / 100, _at(step / 100)))
        buffer.set_transform(_link('b', 'c', step / 100, _at(step / 100)))
    done.set()
    reader.join(timeout=10)
    assert not reader.is_alive()
    assert not failures
    assert step > 100
