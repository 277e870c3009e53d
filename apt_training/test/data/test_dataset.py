"""Frames of episodes as samples."""

import gc
import os
import pickle
from dataclasses import replace

import h5py
import numpy as np
import pytest

from apt_training.data import dataset as dataset_module
from apt_training.data.augment import Augmentation
from apt_training.data.dataset import OPEN_FILES, EpisodeDataset
from apt_training.data.dataset_spec import DatasetSpec
from apt_training.data.published import PUBLISHED
from apt_training.episodes.episode import EpisodeError, ImageStorage, Subtask
from apt_training.episodes.read import Episode


def test_a_sample_has_the_shapes_that_are_documented(make_dataset):
    sample = make_dataset().sample_at(0, 3)
    shapes = {name: np.shape(getattr(sample, name)) for name in (
        'rgb', 'mask', 'intrinsics', 'world_from_camera', 'world_from_ee', 'world_from_reference', 'history', 'future',
        'valid_arms', 'timestamp')}
    assert shapes == {
        'rgb': (2, 32, 32, 3), 'mask': (2, 32, 32), 'intrinsics': (2, 3, 3), 'world_from_camera': (2, 4, 4),
        'world_from_ee': (2, 4, 4), 'world_from_reference': (2, 4, 4), 'history': (1, 2, 17), 'future': (6, 2, 17),
        'valid_arms': (2,), 'timestamp': ()}
    assert sample.rgb.dtype == np.uint8 and sample.source == 'small/0.h5:3'
    assert sample.prompt == 'pick the cube' and sample.cameras == ('high', 'wrist')


def test_an_addressed_sample_is_the_frame_of_the_episode(make_dataset):
    dataset = make_dataset(spec=DatasetSpec(name='small', reference_cameras=(('wrist',), ('high', 'wrist'))))
    episode, sample = dataset.episode(1), dataset.sample_at(1, 4)
    assert np.array_equal(sample.world_from_ee, episode.world_from_ee[4])
    assert np.array_equal(sample.history[-1, :, :16].reshape(2, 4, 4), episode.world_from_ee[4])
    assert np.array_equal(sample.future[:, :, 16], episode.gripper[5:11])
    poses = {name: episode.view(name, 4).world_from_camera for name in ('high', 'wrist')}
    assert np.array_equal(sample.world_from_reference, [poses['wrist'], poses['high']])
    assert np.array_equal(sample.world_from_camera, [poses['high'], poses['wrist']])


def test_the_same_numbers_draw_the_same_sample_and_others_another(make_dataset):
    dataset = make_dataset(augmentation=Augmentation(crop=0.3), shuffle_cameras=True)
    drawn = [dataset.draw_sample(0, np.random.default_rng(seed)) for seed in (5, 5, 6)]
    for name in ('rgb', 'intrinsics', 'future'):
        assert np.array_equal(getattr(drawn[0], name), getattr(drawn[1], name))
        assert not np.array_equal(getattr(drawn[0], name), getattr(drawn[2], name))
    assert drawn[0].prompt == drawn[1].prompt


def test_everything_that_may_be_drawn_is_drawn(make_dataset):
    dataset = make_dataset(shuffle_cameras=True)
    samples = [dataset.draw_sample(0, np.random.default_rng(seed)) for seed in range(120)]
    assert {sample.source for sample in samples} == {f'small/0.h5:{frame}' for frame in range(12)}
    assert {sample.prompt for sample in samples} == {'pick the cube', 'take the cube'}
    assert {sample.cameras for sample in samples} == {('high', 'wrist'), ('wrist', 'high')}


def test_shuffled_cameras_keep_their_poses_and_an_arm_its_reference(make_dataset):
    spec = DatasetSpec(name='small', reference_cameras=(('wrist',), ('high',)))
    dataset = make_dataset(spec=spec, shuffle_cameras=True)
    seen = set()
    for seed in range(30):
        sample = dataset.draw_sample(0, np.random.default_rng(seed))
        plain = dataset.sample_at(0, int(sample.source.rpartition(':')[2]))
        order = [plain.cameras.index(name) for name in sample.cameras]
        for name in ('rgb', 'mask', 'intrinsics', 'world_from_camera'):
            assert np.array_equal(getattr(sample, name), getattr(plain, name)[order])
        assert np.array_equal(sample.world_from_reference, plain.world_from_reference)
        seen.add(sample.cameras)
    assert len(seen) == 2


def test_a_reference_camera_is_drawn_among_the_candidates_in_training_only(make_dataset):
    dataset = make_dataset()
    poses = [dataset.episode(0).view(name, 0).world_from_camera[0, 3] for name in ('high', 'wrist')]
    first = {dataset.sample_at(0, 5).world_from_reference[0, 1, 2] for _ in range(10)}
    drawn = {float(dataset.draw_sample(0, np.random.default_rng(seed)).world_from_reference[0, 1, 2])
             for seed in range(30)}
    assert len(first) == 1 and len(drawn) == 2, poses


def test_a_camera_that_shows_nothing_is_no_reference(make_dataset, write_episode, make_frames, facts):
    frames = [replace(frame, views={**frame.views, 'high': replace(
        frame.views['high'], mask=np.zeros((32, 48), np.bool_))}) for frame in make_frames(facts, 3)]
    dataset = make_dataset(count=1, written={'frames': frames})
    drawn = [dataset.draw_sample(0, np.random.default_rng(seed)) for seed in range(8)]
    for sample in (dataset.sample_at(0, 1), *drawn):
        assert np.array_equal(sample.world_from_reference[0, 1:3, :3], dataset.episode(0).view(
            'wrist', 1).world_from_camera[1:3, :3])
    only = EpisodeDataset(dataset.files, DatasetSpec(name='x', reference_cameras=(('high',), ('high',))))
    with pytest.raises(EpisodeError, match=r'0\.h5, frame 1: none of the reference cameras high shows'):
        only.sample_at(0, 1)


def test_wrist_cameras_are_never_cropped(make_dataset):
    dataset = make_dataset(spec=DatasetSpec(name='small', wrist_cameras=('wrist',)),
                           augmentation=Augmentation(colour=0, gamma=0, blur=0, crop=0.5))
    changed = 0
    for seed in range(5):
        sample = dataset.draw_sample(0, np.random.default_rng(seed))
        plain = dataset.sample_at(0, int(sample.source.rpartition(':')[2]))
        assert np.array_equal(sample.intrinsics[1], plain.intrinsics[1])
        assert np.array_equal(sample.rgb[1], plain.rgb[1])
        changed += not np.array_equal(sample.intrinsics[0], plain.intrinsics[0])
    assert changed == 5


def test_steps_come_from_the_spec(make_dataset):
    by_frames = make_dataset(spec=DatasetSpec(name='small', step_frames=2)).sample_at(0, 1)
    episode = make_dataset().episode(0)
    assert np.array_equal(by_frames.future[:, :, 16], episode.gripper[[3, 5, 7, 9, 11, 11]])
    by_time = make_dataset(spec=DatasetSpec(name='small', step_s=0.3)).sample_at(0, 1)
    assert np.array_equal(by_time.future[:, :, 16], episode.gripper[[4, 7, 10, 11, 11, 11]])
    by_rate = make_dataset(spec=DatasetSpec(name='small', rate_hz=15.0, step_frames=3)).sample_at(0, 1)
    assert np.array_equal(by_rate.future[:, :, 16], episode.gripper[[4, 7, 10, 11, 11, 11]])


def test_commands_are_the_labels_where_the_file_has_them(make_dataset):
    dataset = make_dataset(written={'desired': True})
    episode, sample = dataset.episode(0), dataset.sample_at(0, 2)
    assert np.array_equal(sample.future[..., 16], episode.desired_gripper[2:8])
    assert np.array_equal(sample.future[..., :16].reshape(6, 2, 4, 4),
                          episode.desired_world_from_ee[2:8])
    assert np.array_equal(sample.world_from_ee, episode.world_from_ee[2])


def test_the_origin_of_droids_end_effector_moves_along_its_z(make_dataset):
    forward = make_dataset(spec=DatasetSpec(name='small', ee_forward_m=0.15)).sample_at(0, 2)
    plain = make_dataset().sample_at(0, 2)
    shift = forward.world_from_ee[:, :3, 3] - plain.world_from_ee[:, :3, 3]
    assert np.allclose(shift, 0.15 * plain.world_from_ee[:, :3, 2])
    futures = [sample.future[..., :16].reshape(6, 2, 4, 4) for sample in (forward, plain)]
    assert np.allclose(np.linalg.norm(futures[0][..., :3, 3] - futures[1][..., :3, 3], axis=-1), 0.15)
    assert np.array_equal(forward.world_from_camera, plain.world_from_camera)


def test_arms_that_an_episode_does_not_teach_are_masked_and_keep_their_place(make_dataset):
    dataset = make_dataset(written={'changes': {'ee_indices': (1,)}})
    sample = dataset.sample_at(0, 0)
    assert sample.valid_arms.tolist() == [False, True] and len(sample.world_from_ee) == 2


def test_published_datasets_take_the_arms_they_name_and_an_episode_may_narrow_them(make_dataset):
    spec = DatasetSpec(name='small', cameras=('high', 'wrist'), ee_indices=(0, 1),
                       reference_cameras=(('high',), ('wrist',)))
    dataset = make_dataset(spec=spec, written={'changes': {'ee_indices': (1,)}})
    sample, episode = dataset.sample_at(0, 3), dataset.episode(0)
    assert sample.valid_arms.tolist() == [True]
    assert np.array_equal(sample.world_from_ee[0], episode.world_from_ee[3, 1])
    assert np.array_equal(sample.world_from_reference[0], episode.view('wrist', 3).world_from_camera)


def test_an_episode_that_does_not_fit_the_declaration_is_named(make_dataset):
    for spec, message in ((DatasetSpec(name='small', cameras=('front',)), "no camera 'front'.*has high, wrist"),
                          (DatasetSpec(name='small', arms=('right', 'left')), 'has arms left, right'),
                          (DatasetSpec(name='small', ee_indices=(2,)), 'has 2 arms')):
        dataset = make_dataset(spec=spec)
        with pytest.raises(EpisodeError, match=rf'1\.h5.*{message}'):
            dataset.check_episode(1)
        with pytest.raises(EpisodeError, match=message):
            dataset.sample_at(1, 0)


def test_a_declaration_with_an_unknown_reference_camera_is_refused():
    with pytest.raises(ValueError, match="reference camera 'left' is not among"):
        DatasetSpec(name='x', cameras=('high',), reference_cameras=(('left',),))


def test_subtasks_and_rewritten_prompts_reach_the_sample(make_dataset):
    changes = {'subtasks': (Subtask(start=4, description='lift'),), 'prompts': ('KITCHEN SCENE4 close the drawer',)}
    spec = DatasetSpec(name='small', rewrite_prompt=PUBLISHED['Libero10'].rewrite_prompt)
    dataset = make_dataset(spec=spec, written={'changes': changes})
    assert dataset.sample_at(0, 0).prompt == 'close the drawer'
    assert dataset.sample_at(0, 4).prompt == 'close the drawer. lift'


def open_files(dataset):
    """Number of the dataset's files that this process holds open."""
    held = [os.path.realpath(f'/proc/self/fd/{number}') for number in os.listdir('/proc/self/fd')]
    return sum(os.path.realpath(file) in held for file in dataset.files)


def test_only_pixels_are_read_again_of_an_episode_whose_file_was_closed(make_dataset, monkeypatch):
    dataset = make_dataset(count=40, written={'count': 2, 'height': 8, 'width': 8})
    before = [dataset.sample_at(index, 1) for index in range(40)]
    read = []
    monkeypatch.setattr(Episode, '_array', lambda episode, key: read.append(key))
    for index, sample in enumerate(before):
        again = dataset.sample_at(index, 1)
        assert np.array_equal(again.rgb, sample.rgb) and np.array_equal(again.future, sample.future)
    assert not read and open_files(dataset) == OPEN_FILES


def test_the_memory_of_closed_files_is_bounded(make_dataset, monkeypatch):
    dataset = make_dataset(count=40, written={'count': 2, 'height': 8, 'width': 8})
    dataset.sample_at(0, 0)
    room = 3 * dataset.episode(0).nbytes
    monkeypatch.setattr(dataset_module, 'CACHED_BYTES', room)
    for index in range(40):
        dataset.sample_at(index, 0)
    made = []
    monkeypatch.setattr(EpisodeDataset, '_open_episode', lambda _, file: made.append(file) or Episode(file))
    # The last 32 are open, and the arrays of three more are cached.
    for index in range(39, 4, -1):
        dataset.sample_at(index, 0)
    assert not made
    dataset.sample_at(4, 0)
    assert made == [dataset.files[4]]


def test_few_files_stay_open(make_dataset):
    dataset = make_dataset(count=40, written={'count': 2, 'storage': ImageStorage.RAW, 'height': 8, 'width': 8})
    for index in range(40):
        dataset.sample_at(index, 0)
    assert open_files(dataset) == OPEN_FILES == 32
    dataset.close()
    assert open_files(dataset) == 0
    with h5py.File(dataset.files[0], 'r+'):
        pass


def test_a_dataset_may_be_pickled_while_files_are_open(make_dataset):
    dataset = make_dataset()
    sample = dataset.sample_at(0, 3)
    again = pickle.loads(pickle.dumps(dataset)).sample_at(0, 3)
    assert np.array_equal(again.rgb, sample.rgb)


def test_a_dataset_without_files_is_refused():
    with pytest.raises(ValueError, match='dataset x has no episodes'):
        EpisodeDataset([], DatasetSpec(name='x'))


def test_a_closed_file_leaves_nothing_that_only_a_full_collection_would_free(make_dataset):
    # What waits for it adds up to 100 MB an hour in a loading process.
    dataset = make_dataset()
    dataset.sample_at(0, 0)
    dataset.close()
    gc.collect()
    gc.disable()
    try:
        for episode in range(len(dataset)):
            dataset.sample_at(episode, 0)
        dataset.close()
        assert gc.collect() == 0
    finally:
        gc.enable()
