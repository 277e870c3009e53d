"""Round trip of episodes through files."""

import multiprocessing
import pickle
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from apt_training.episodes.episode import EpisodeError, ImageStorage, Subtask
from apt_training.episodes.read import Episode
from apt_training.episodes.write import EpisodeWriter

STORAGES = tuple(ImageStorage)
COLOUR_TOLERANCE = {ImageStorage.RAW: 0, ImageStorage.JPEG: 6, ImageStorage.VIDEO: 10}


@pytest.mark.parametrize('storage', STORAGES)
def test_every_storage_gives_back_what_was_written(tmp_path, write_episode, storage):
    frames = write_episode(tmp_path / 'a.h5', storage=storage, count=40, desired=True, mask=True)
    with Episode(tmp_path / 'a.h5') as episode:
        episode.check()
        assert len(episode) == 40
        assert np.array_equal(episode.world_from_ee, [frame.world_from_ee for frame in frames])
        assert np.array_equal(episode.gripper, [frame.gripper for frame in frames])
        assert np.array_equal(episode.desired_world_from_ee, [frame.desired_world_from_ee for frame in frames])
        assert np.array_equal(episode.desired_gripper, [frame.desired_gripper for frame in frames])
        assert np.allclose(episode.timestamps, [frame.stamp_s for frame in frames], rtol=0, atol=1e-9)
        # Out of order: a video has to seek back.
        for index in (39, 3, 17, 0):
            for name, view in frames[index].views.items():
                seen = episode.view(name, index)
                assert episode.storage(name) is storage
                assert np.abs(seen.rgb[8:].astype(int) - view.rgb[8:]).mean() <= COLOUR_TOLERANCE[storage]
                assert np.array_equal(seen.mask, view.mask)
                assert np.array_equal(seen.intrinsics, view.intrinsics)
                assert np.array_equal(seen.world_from_camera, view.world_from_camera)


@pytest.mark.parametrize('storage', STORAGES)
def test_red_green_and_blue_stay_themselves_in_every_storage(tmp_path, write_episode, storage):
    write_episode(tmp_path / 'a.h5', storage=storage, count=1, width=96)
    with Episode(tmp_path / 'a.h5') as episode:
        rgb = episode.view('high', 0).rgb
    for channel in range(3):
        patch = rgb[4:28, 32 * channel + 8:32 * channel + 24].reshape(-1, 3).mean(0)
        assert patch.argmax() == channel and patch[channel] > 3 * np.delete(patch, channel).max()


def test_the_facts_come_back(tmp_path, write_episode, facts):
    changes = {'contract': {'arms': ['left', 'right'], 'step_s': 0.1}, 'source_hash': 'abc', 'ee_indices': (1,),
               'prompts': tuple(f'wording {i}' for i in range(12)),
               'subtasks': (Subtask(start=0, description='reach'), Subtask(start=5, description='lift'))}
    write_episode(tmp_path / 'a.h5', changes=changes)
    assert Episode(tmp_path / 'a.h5').facts == replace(facts, **changes)


def test_the_subtask_that_is_active_is_added_to_the_prompt(facts):
    parted = replace(facts, subtasks=(Subtask(start=2, description='reach'), Subtask(start=5, description='lift')))
    assert [parted.prompt(0, frame) for frame in (0, 2, 4, 5, 99)] == [
        'pick the cube', *['pick the cube. reach'] * 2, *['pick the cube. lift'] * 2]
    assert replace(parted, prompts=('Done.',)).prompt(0, 2) == 'Done. reach'
    assert replace(parted, prompts=()).prompt(0, 2) == 'reach'


def test_masks_and_intrinsics_may_change_within_an_episode(tmp_path, write_episode, make_frames, facts):
    frames = make_frames(facts, 4, mask=True)
    view = frames[2].views['high']
    moved = replace(view, mask=~view.mask, intrinsics=view.intrinsics * [[2], [2], [1]])
    frames[2] = replace(frames[2], views={**frames[2].views, 'high': moved})
    write_episode(tmp_path / 'a.h5', frames=frames)
    with Episode(tmp_path / 'a.h5') as episode:
        for index, frame in enumerate(frames):
            assert np.array_equal(episode.view('high', index).mask, frame.views['high'].mask)
            assert np.array_equal(episode.view('high', index).intrinsics, frame.views['high'].intrinsics)


def test_a_gap_in_the_recording_does_not_shift_the_video(tmp_path, write_episode, make_frames, facts):
    frames = [frame for step, frame in enumerate(make_frames(facts, 30)) if not 7 <= step < 19]
    write_episode(tmp_path / 'a.h5', storage=ImageStorage.VIDEO, frames=frames)
    with Episode(tmp_path / 'a.h5') as episode:
        for index in (6, 7, 8, 17):
            wanted = frames[index].views['wrist'].rgb.astype(int)
            assert np.abs(episode.view('wrist', index).rgb - wanted).mean() < 10


def test_the_same_frames_give_the_same_bytes(tmp_path, write_episode):
    for again in ('1', '2'):
        for storage in STORAGES:
            write_episode(tmp_path / again / f'{storage.value}.h5', storage=storage, count=20, mask=True)
        # HDF5 and MP4 have dates of one second.
        time.sleep(1.1 if again == '1' else 0)
    names = sorted(path.name for path in (tmp_path / '1').iterdir())
    assert len(names) == 5
    for name in names:
        assert (tmp_path / '1' / name).read_bytes() == (tmp_path / '2' / name).read_bytes(), name


@pytest.mark.parametrize('storage', STORAGES)
def test_an_interrupted_writer_leaves_nothing_and_the_old_file_as_it_was(tmp_path, make_frames, facts, storage):
    path = tmp_path / 'a.h5'
    path.write_bytes(b'the old one')
    with pytest.raises(KeyboardInterrupt):
        _interrupted(path, facts, storage, make_frames(facts, 20))
    assert [found.name for found in tmp_path.iterdir()] == ['a.h5']
    assert path.read_bytes() == b'the old one'


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path, write_episode):
    # No process has that number: it is beyond the kernel's limit.
    writer = f't1.p{2**22 + 1}.partial'
    for name in ('a.h5', 'a.high.mp4', 'b.h5'):
        (tmp_path / f'.{name}.{writer}').write_bytes(b'half')
    write_episode(tmp_path / 'a.h5', storage=ImageStorage.VIDEO, count=2)
    assert sorted(found.name for found in tmp_path.iterdir()) == [
        f'.b.h5.{writer}', 'a.h5', 'a.high.mp4', 'a.wrist.mp4']


def test_an_open_episode_may_be_pickled_and_used_in_a_forked_process(tmp_path, write_episode):
    write_episode(tmp_path / 'a.h5')
    with Episode(tmp_path / 'a.h5') as episode:
        here = episode.view('high', 3).rgb
        assert np.array_equal(pickle.loads(pickle.dumps(episode)).view('high', 3).rgb, here)
        with multiprocessing.get_context('fork').Pool(2) as pool:
            assert all(pool.map(_Sees(episode, here), range(4)))
        assert np.array_equal(episode.view('high', 3).rgb, here)


def test_a_closed_episode_opens_again(tmp_path, write_episode):
    write_episode(tmp_path / 'a.h5')
    episode = Episode(tmp_path / 'a.h5')
    assert len(episode) == 12
    episode.close()
    assert episode.view('high', 0).rgb.shape == (32, 48, 3)


def test_units_and_frames_stand_in_the_file(tmp_path, write_episode):
    write_episode(tmp_path / 'a.h5')
    with h5py.File(tmp_path / 'a.h5') as file:
        assert 'world_from_ee' in file.attrs['frames'] and 'gripper 0 closed' in file.attrs['units']
        assert file.attrs['label_source'] == 'measured' and list(file.attrs['cameras']) == ['high', 'wrist']


def test_a_writer_outside_a_with_block_says_so(tmp_path, make_frames, facts):
    with pytest.raises(RuntimeError, match='with block'):
        EpisodeWriter(Path(tmp_path / 'a.h5'), facts).append_frame(make_frames(facts, 1)[0])
    expected = 'got no frame, expected at least one'
    with pytest.raises(EpisodeError, match=expected), EpisodeWriter(tmp_path / 'a.h5', facts):
        pass


def _interrupted(path, facts, storage, frames):
    with EpisodeWriter(path, facts, storage=storage) as writer:
        for frame in frames:
            writer.append_frame(frame)
        raise KeyboardInterrupt


class _Sees:
    """Return whether another process reads the same image."""

    def __init__(self, episode, rgb):
        self.episode, self.rgb = episode, rgb

    def __call__(self, _):
        return bool(np.array_equal(self.episode.view('high', 3).rgb, self.rgb))


def test_what_is_remembered_of_a_file_is_not_mixed_with_another_in_its_place(tmp_path, write_episode):
    write_episode(tmp_path / 'a.h5', count=5)
    write_episode(tmp_path / 'b.h5', count=3)
    episode = Episode(tmp_path / 'a.h5')
    assert len(episode) == 5
    camera, *_ = episode.facts.cameras
    episode.close_file()
    episode.view(camera, 1)
    episode.close_file()
    (tmp_path / 'b.h5').replace(tmp_path / 'a.h5')
    with pytest.raises(EpisodeError, match=r'a\.h5 was replaced while it was read: open it again'):
        episode.view(camera, 1)
    episode.close()
    assert len(episode) == 3
