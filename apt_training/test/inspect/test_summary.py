from dataclasses import replace

import numpy as np
import pytest

from apt_training.episodes.episode import ImageStorage, LabelSource
from apt_training.episodes.read import Episode
from apt_training.inspect.summary import compared_frames, summarize_episode


@pytest.fixture
def look(write_episode, tmp_path):
    """Return a function that summarizes an episode of given frames, or of those of write_episode."""
    def examine_written(frames=None, **shape):
        write_episode(tmp_path / 'episode.h5', frames=frames, **shape)
        with Episode(tmp_path / 'episode.h5') as episode:
            return summarize_episode(episode)
    return examine_written


def moved(frame, **changes):
    return replace(frame, **changes)


def straight(frames, step_m=0.01):
    """Return frames with both arms moving steadily along x, turning about z, and closing the gripper once."""
    made = []
    for index, frame in enumerate(frames):
        poses = np.tile(np.eye(4), (2, 1, 1))
        poses[:, 0, 3], poses[:, 1, 3] = step_m * index, (0.3, -0.3)
        made.append(moved(frame, world_from_ee=poses, gripper=np.full(2, 1.0 if index < len(frames) // 2 else 0.1)))
    return made


@pytest.fixture
def steady(facts, make_frames):
    return straight(make_frames(facts, 12))


def test_a_steady_episode_is_measured_exactly_and_nothing_is_found(look, steady):
    seen = look(steady)
    assert (seen.frames, seen.facts.rate_hz, seen.gaps) == (12, 10.0, 0)
    assert seen.duration_s == pytest.approx(1.1) and seen.measured_rate_hz == pytest.approx(10.0)
    left = seen.arms[0]
    assert left.lower == pytest.approx([0.0, 0.3, 0.0]) and left.upper == pytest.approx([0.11, 0.3, 0.0])
    assert left.travel_m == pytest.approx(0.11) and left.step_m == pytest.approx(0.01)
    assert left.speed_m_s == pytest.approx(0.1) and left.gripper == (0.1, 1.0) and left.gripper_moves == 1
    assert seen.warnings == ()


def test_cameras_are_described(look, steady):
    high, wrist = look(steady).cameras
    assert (high.width, high.height, high.storage) == (48, 32, ImageStorage.JPEG)
    assert high.field_of_view_deg == pytest.approx(2 * np.rad2deg(np.arctan(24 / 50)))
    assert not high.moves and wrist.moves and wrist.travel_m == pytest.approx(0.11)


def test_a_jump_is_found_with_its_frame_and_size(look, steady):
    pose = steady[7].world_from_ee.copy()
    pose[1, 2, 3] = 0.4
    steady[7] = moved(steady[7], world_from_ee=pose)
    [warning] = look(steady).warnings
    assert 'arm right jumps: 0.400 m' in warning and 'frame 7' in warning


def test_a_turn_in_one_step_is_a_jump_too(look, steady):
    pose = steady[5].world_from_ee.copy()
    pose[0, :3, :3] = np.diag([-1.0, -1.0, 1.0])
    steady[5] = moved(steady[5], world_from_ee=pose)
    assert any('arm left jumps' in warning and '180 deg' in warning for warning in look(steady).warnings)


def test_a_frozen_camera_is_found_while_the_arms_move(look, steady):
    frozen = steady[0].views['wrist'].rgb
    frames = [moved(frame, views={**frame.views, 'wrist': replace(frame.views['wrist'], rgb=frozen)})
              for frame in steady]
    seen = look(frames)
    assert seen.cameras[1].frozen_share == 1.0 and seen.cameras[0].frozen_share == 0.0
    assert [warning for warning in seen.warnings if 'camera wrist: 100% of 11' in warning]


def test_a_black_camera_is_found(look, steady):
    black = np.zeros((32, 48, 3), np.uint8)
    frames = [moved(frame, views={**frame.views, 'high': replace(frame.views['high'], rgb=black)}) for frame in steady]
    assert any('camera high is black' in warning for warning in look(frames).warnings)


def test_missing_frames_are_counted(look, steady):
    frames = [*steady[:4], *steady[8:]]
    seen = look(frames)
    assert seen.gaps == 1 and seen.longest_gap_s == pytest.approx(0.5)
    assert any('1 of 7 intervals' in warning and '0.500 s' in warning for warning in seen.warnings)


def test_a_wrong_rate_is_found(look, steady):
    assert any('rate 20 Hz, but its timestamps have 10.00 Hz' in warning
               for warning in look(steady, changes={'rate_hz': 20.0}).warnings)


def test_arms_and_grippers_that_rest_are_found_only_if_all_do(look, steady):
    resting = steady[0].world_from_ee[0]
    one = [moved(frame, world_from_ee=np.stack([resting, frame.world_from_ee[1]]),
                 gripper=np.array([1.0, frame.gripper[1]])) for frame in steady]
    assert look(one).warnings == ()
    none = [moved(frame, world_from_ee=steady[0].world_from_ee, gripper=np.array([1.0, 0.5])) for frame in steady]
    warnings = look(none).warnings
    assert 'no arm moves' in warnings and 'no gripper moves: left stays at 1.00, right stays at 0.50' in warnings


def test_commands_in_another_frame_are_found(look, steady):
    far = np.array([[0, 0, 0, 0.2], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    frames = [moved(frame, desired_world_from_ee=frame.world_from_ee + far, desired_gripper=frame.gripper)
              for frame in steady]
    seen = look(frames, changes={'label_source': LabelSource.TARGETS})
    assert seen.arms[0].label_gap_m == pytest.approx(0.2)
    assert any('commanded 0.20 m away' in warning for warning in seen.warnings)


def test_a_wrist_camera_that_never_moves_is_found(look, steady):
    fixed = steady[0].views['wrist'].world_from_camera
    frames = [moved(frame, views={**frame.views, 'wrist': replace(frame.views['wrist'], world_from_camera=fixed)})
              for frame in steady]
    assert any('wrist should move with an arm by its name' in warning for warning in look(frames).warnings)


def test_an_episode_without_words_is_found(look, steady):
    assert any('no instruction' in warning for warning in look(steady, changes={'prompts': ()}).warnings)


def test_intrinsics_of_another_image_size_are_found(look, steady):
    def zoomed(view):
        return replace(view, intrinsics=np.array([[2000.0, 0, 24], [0, 2000.0, 16], [0, 0, 1]]))
    frames = [moved(frame, views={name: zoomed(view) for name, view in frame.views.items()}) for frame in steady]
    assert any('field of view of 1 deg' in warning for warning in look(frames).warnings)


def test_one_frame_alone_can_be_examined(look, steady):
    seen = look(steady[:1])
    assert (seen.frames, seen.duration_s, seen.measured_rate_hz) == (1, 0.0, 0.0)


def test_long_episodes_are_compared_at_pairs_spread_over_them():
    assert compared_frames(5) == [0, 1, 2, 3]
    some = compared_frames(1000, 10)
    assert len(some) == 10 and some[0] == 0 and some[-1] == 998
