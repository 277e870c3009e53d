"""Samples as the model's batch: the same numbers that the live planner computes."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from apt_policy.core.contract import RobotContract, contract_from_dict, contract_to_dict
from apt_policy.core.images import letterbox
from apt_policy.core.sample import ArmState, Observation, View
from apt_policy.model.observation import ABSENT, encode_images, encode_robot_state, reference_candidates
from apt_policy.model.policy import TrainingBatch
from apt_training.data.collate import collate
from apt_training.data.dataset import EpisodeDataset
from apt_training.data.dataset_spec import DatasetSpec, spec_from_contract
from apt_training.data.open_datasets import window_from_contract
from apt_training.data.sample import Window
from apt_training.episodes.episode import CameraFrame, Frame, ImageStorage

SIDE, HISTORY, RATE = 64, 3, 10.0


@pytest.fixture
def robot(aloha: RobotContract) -> RobotContract:
    """ALOHA with small images and a past."""
    return contract_from_dict({**contract_to_dict(aloha), 'image_size': SIDE, 'history': HISTORY}, source='test')


def seen_by_camera(rng: np.random.Generator, random_pose: np.ndarray) -> CameraFrame:
    """View of the live node's assembler: letterboxed, with the mask and intrinsics that follow."""
    fit = letterbox(rng.integers(0, 255, (48, 64, 3)).astype(np.uint8),
                    np.array([[61.7, 0, 33.1], [0, 60.3, 22.9], [0, 0, 1]]) + rng.normal(0, 0.1), SIDE)
    return CameraFrame(rgb=fit.rgb, mask=fit.mask, world_from_camera=random_pose,
                       intrinsics=np.array([[1, 0, 1], [0, 1, 1], [0, 0, 0]]) * fit.intrinsics
                       + np.diag((0.0, 0.0, 1.0)))


@pytest.fixture
def recorded(robot, write_episode, tmp_path, random_poses):
    """Frames of the robot at its own rate, and the file they were written to."""
    rng = np.random.default_rng(3)
    frames = [Frame(stamp_s=7.0 + step / RATE, world_from_ee=random_poses(2), gripper=rng.uniform(0, 1, 2),
                    desired_world_from_ee=None, desired_gripper=None,
                    views={name: seen_by_camera(rng, random_poses(1)[0]) for name in robot.cameras})
              for step in range(8)]
    changes = {'arms': tuple(robot.arms), 'cameras': tuple(robot.cameras), 'rate_hz': RATE}
    write_episode(tmp_path / 'a.h5', storage=ImageStorage.RAW, frames=frames, changes=changes)
    return frames, EpisodeDataset([tmp_path / 'a.h5'], spec_from_contract('aloha', robot),
                                  window=window_from_contract(robot))


@pytest.fixture
def random_poses():
    """(count, 4, 4) within a metre."""
    from scipy.spatial.transform import Rotation

    from apt_policy.core.geometry import make_pose
    rng = np.random.default_rng(11)
    return lambda count: make_pose(Rotation.random(count, random_state=rng).as_matrix(), rng.uniform(-1, 1, (count, 3)))


def observation_at(frames, index):
    """Observation that the live node would pass to its planner at a frame."""
    def arms(frame):
        return tuple(ArmState(world_from_ee=frame.world_from_ee[arm], gripper=float(frame.gripper[arm]))
                     for arm in range(2))
    now = frames[index]
    views = tuple(View(rgb=view.rgb, mask=view.mask, intrinsics=view.intrinsics, stamp_ns=0,
                       world_from_camera=view.world_from_camera) for view in now.views.values())
    return Observation(stamp_ns=0, prompt='pick the cube', views=views,
                       history=tuple(arms(frames[index - back]) for back in reversed(range(HISTORY))))


def assert_equal(ours, theirs):
    for field in fields(theirs):
        left, right = getattr(ours, field.name), getattr(theirs, field.name)
        if isinstance(right, torch.Tensor):
            assert left.dtype == right.dtype and torch.equal(left, right), field.name
        else:
            assert left == right, field.name


def test_training_and_the_live_planner_see_the_same_to_the_bit(robot, recorded):
    frames, dataset = recorded
    for index in (2, 5):
        batch = collate([dataset.sample_at(0, index)]).to(torch.device('cpu'))
        live = observation_at(frames, index)
        images = encode_images(live)
        assert_equal(batch.images, images)
        assert_equal(batch.robot, encode_robot_state(live, images.camera_valid, reference_candidates(robot)))


def test_the_future_is_that_of_the_episode(recorded):
    frames, dataset = recorded
    future = collate([dataset.sample_at(0, 2)]).to(torch.device('cpu')).future[0]
    for step in range(5):
        pose = torch.from_numpy(frames[3 + step].world_from_ee).float().flatten(1)
        assert torch.equal(future[step, :, :16], pose)
    assert torch.equal(future[5:], future[4:5].expand_as(future[5:]))


def test_fewer_cameras_and_arms_are_padded_and_masked(make_dataset, facts):
    two = make_dataset('two').sample_at(0, 0)
    one = make_dataset('one', spec=DatasetSpec(
        name='one', cameras=('wrist',), ee_indices=(1,), reference_cameras=(('wrist',),))).sample_at(0, 0)
    batch = collate([one, two]).to(torch.device('cpu'))
    assert batch.images.camera_valid.tolist() == [[True, False], [True, True]]
    assert batch.robot.valid_arms.tolist() == [[True, False], [True, True]]
    assert not batch.images.rgb[0, 1].any() and torch.isfinite(batch.images.norm_xy).all()
    absent = torch.from_numpy(ABSENT).float()
    assert torch.equal(batch.robot.history[0, :, 1], absent.expand(1, 17))
    assert torch.equal(batch.future[0, :, 1], absent.expand(6, 17))
    alone = collate([one]).to(torch.device('cpu'))
    assert torch.equal(batch.images.rgb[0, :1], alone.images.rgb[0])
    assert torch.equal(batch.robot.world_from_ee[0, :1], alone.robot.world_from_ee[0])


def test_a_batch_may_be_given_room_for_more(make_dataset):
    host = collate([make_dataset().sample_at(0, 0)], cameras=4, arms=3)
    assert host.rgb.shape == (1, 4, 32, 32, 3) and host.valid_arms.tolist() == [[True, True, False]]
    with pytest.raises(ValueError, match='2 cameras, the batch has room for 1'):
        collate([make_dataset().sample_at(0, 0)], cameras=1)


def test_samples_of_different_windows_are_refused(make_dataset):
    other = make_dataset('other', window=Window(image_size=32, horizon=4))
    with pytest.raises(ValueError, match='one window'):
        collate([make_dataset().sample_at(0, 0), other.sample_at(0, 0)]).to(torch.device('cpu'))


def test_a_host_batch_knows_where_it_came_from_and_is_small(make_dataset):
    host = collate([make_dataset().sample_at(0, 3), make_dataset().sample_at(1, 4)])
    assert host.sources == ('small/0.h5:3', 'small/1.h5:4') and host.cameras == (('high', 'wrist'),) * 2
    assert host.rgb.dtype == torch.uint8
    assert isinstance(host.to(torch.device('cpu')), TrainingBatch)
