"""Errors of invalid episodes name file, key and frame."""

import errno
import os
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest

from apt_training.episodes.episode import EpisodeError, ImageStorage
from apt_training.episodes.read import Episode
from apt_training.episodes.write import EpisodeWriter


def replaced(file, key, data):
    del file[key]
    file[key] = data


def with_nan(key, index):
    def change(file):
        data = file[key][()]
        data[index] = np.nan
        replaced(file, key, data)
    return change


def truncated_jpeg(file):
    file['high/rgb'][5] = file['high/rgb'][5][:200]


def no_jpeg(file):
    file['high/rgb'][5] = np.zeros(100, np.uint8)


def renamed_camera(file):
    file.move('high', 'low')


BAD = {
    'pose with NaN': (with_nan('ee_pose', (5, 1, 0, 3)), r'ee_pose\[5\] is not finite'),
    'gripper with NaN': (with_nan('gripper', (5, 1)), r'gripper\[5, 1\] is nan'),
    'intrinsics with NaN': (with_nan('high/K', (0, 0)), r'high/K\[0\]'),
    'camera pose with NaN': (with_nan('wrist/pose', (5, 0, 0)), r'wrist/pose\[5\] is not finite'),
    'timestamps with NaN': (with_nan('timestamp', 5), r'timestamp.*frame 5'),
    'stretched pose': (lambda file: replaced(file, 'ee_pose', 2 * file['ee_pose'][()]), 'no rigid transform'),
    'gripper in ticks': (lambda file: replaced(file, 'gripper', 100 * file['gripper'][()]), r'gripper range'),
    'time standing still': (lambda file: replaced(file, 'timestamp', np.zeros(12)), 'timestamp.*frame 1'),
    'flat pose': (lambda file: replaced(file, 'ee_pose', np.zeros((12, 16))), r'ee_pose has shape \(12, 16\)'),
    'fewer grippers': (lambda file: replaced(file, 'gripper', np.zeros((12, 1))), r'gripper has shape'),
    'fewer stamps': (lambda file: replaced(file, 'timestamp', np.arange(11.0)), r'timestamp has shape \(11,\)'),
    'fewer images': (lambda file: replaced(file, 'high/rgb', np.zeros((11, 3, 8, 8), np.uint8)), r'high/rgb is'),
    'float images': (lambda file: replaced(file, 'high/rgb', np.zeros((12, 3, 8, 8))), r'high/rgb is.*float64'),
    'no gripper': (lambda file: file.__delitem__('gripper'), "has no 'gripper'"),
    'no images': (lambda file: file.__delitem__('high/rgb'), r"high has no 'rgb'"),
    'no intrinsics': (lambda file: file.__delitem__('high/K'), r"high has no 'K'"),
    'no camera': (renamed_camera, "no camera 'high'"),
    'unknown label source': (lambda file: file.attrs.__setitem__('label_source', 'guess'), 'guess'),
    'arm that is not there': (lambda file: file.attrs.__setitem__('ee_indices', [2]), r'ee_indices are \[2\]'),
}


@pytest.mark.parametrize('what', BAD)
def test_a_bad_file_is_named_with_key_and_frame(tmp_path, write_episode, what):
    change, message = BAD[what]
    write_episode(tmp_path / 'bad.h5')
    with h5py.File(tmp_path / 'bad.h5', 'r+') as file:
        change(file)
    with pytest.raises(EpisodeError, match=f'bad.h5.*{message}'), Episode(tmp_path / 'bad.h5') as episode:
        episode.check()


@pytest.mark.parametrize(('change', 'message'), [(truncated_jpeg, 'truncated'), (no_jpeg, 'not a JPEG file')])
def test_a_bad_image_is_named_with_its_frame_and_the_others_are_read(tmp_path, write_episode, change, message):
    write_episode(tmp_path / 'bad.h5')
    with h5py.File(tmp_path / 'bad.h5', 'r+') as file:
        change(file)
    episode = Episode(tmp_path / 'bad.h5')
    with pytest.raises(EpisodeError, match=f'bad.h5, high/rgb, frame 5: .*{message}'):
        episode.view('high', 5)
    assert episode.view('high', 4).rgb.shape == (32, 48, 3)


@pytest.mark.parametrize('content', [b'', b'not HDF5 at all', None])
def test_a_file_that_is_no_hdf5_is_named(tmp_path, write_episode, content):
    write_episode(tmp_path / 'bad.h5')
    whole = (tmp_path / 'bad.h5').read_bytes()
    (tmp_path / 'bad.h5').write_bytes(whole[:len(whole) // 2] if content is None else content)
    with pytest.raises(EpisodeError, match='bad.h5: cannot read '):
        Episode(tmp_path / 'bad.h5').check()


def test_what_does_not_exist_is_named(tmp_path, write_episode):
    with pytest.raises(EpisodeError, match='none.h5 does not exist'):
        len(Episode(tmp_path / 'none.h5'))
    write_episode(tmp_path / 'a.h5', storage=ImageStorage.VIDEO)
    episode = Episode(tmp_path / 'a.h5')
    with pytest.raises(EpisodeError, match="no camera 'front'; it has high, wrist"):
        episode.view('front', 0)
    with pytest.raises(EpisodeError, match=r'no frame 12, expected 0 \.\. 11'):
        episode.view('high', 12)
    (tmp_path / 'a.high.mp4').unlink()
    with pytest.raises(EpisodeError, match=r'high/rgb, frame 3: video .*a\.high\.mp4 does not exist'):
        episode.view('high', 3)


def test_a_video_that_is_cut_short_is_named(tmp_path, write_episode):
    write_episode(tmp_path / 'a.h5', storage=ImageStorage.VIDEO, count=30)
    video = tmp_path / 'a.high.mp4'
    video.write_bytes(video.read_bytes()[:1000])
    with pytest.raises(EpisodeError, match=r'a\.h5, high/rgb, frame 29: video .*a\.high\.mp4'):
        Episode(tmp_path / 'a.h5').view('high', 29)


def changed_view(frame, **changes):
    return replace(frame, views={**frame.views, 'high': replace(frame.views['high'], **changes)})


UNFIT = {
    'stamps go back': (lambda f: replace(f, stamp_s=0.0), 'expected finite and increasing stamps'),
    'one arm': (lambda f: replace(f, world_from_ee=f.world_from_ee[:1]), r'ee_pose has shape \(1, 4, 4\)'),
    'NaN in a gripper': (lambda f: replace(f, gripper=f.gripper * np.nan), r'gripper\[0\] is nan'),
    'a camera is missing': (lambda f: replace(f, views={'wrist': f.views['wrist']}), 'missing cameras: high'),
    'another size': (lambda f: changed_view(f, rgb=np.zeros((32, 64, 3), np.uint8)), 'as in the first frame'),
    'float pixels': (lambda f: changed_view(f, rgb=np.zeros((32, 48, 3))), 'float64, expected'),
    'intrinsics of zero': (lambda f: changed_view(f, intrinsics=np.zeros((3, 3))), 'pinhole matrix'),
    'a label appears': (lambda f: replace(f, desired_gripper=f.gripper), 'in every frame of an episode or in none'),
}


@pytest.mark.parametrize('what', UNFIT)
def test_a_frame_that_does_not_fit_is_refused_and_no_file_appears(tmp_path, write_episode, make_frames, facts, what):
    change, message = UNFIT[what]
    frames = make_frames(facts, 4)
    frames[3] = change(frames[3])
    with pytest.raises(EpisodeError, match=f'a.h5.*frame 3.*{message}'):
        write_episode(tmp_path / 'a.h5', frames=frames)
    assert not list(tmp_path.iterdir())


def test_facts_that_make_no_file_are_refused(tmp_path, facts):
    for changes, message in (({'cameras': ()}, 'at least one camera'), ({'arms': ('a', 'a')}, 'no name twice'),
                             ({'cameras': ('gripper',)}, "camera name 'gripper' is reserved"),
                             ({'rate_hz': 0.0}, 'rate_hz is 0.0'),
                             ({'ee_indices': (5,)}, 'ee_indices')):
        with pytest.raises(EpisodeError, match=message):
            EpisodeWriter(tmp_path / 'a.h5', replace(facts, **changes))


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of 1.5 MiB."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1536k', 'tmpfs', folder], check=False,
                             capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f'a small tmpfs cannot be mounted here: {mounted.stderr.strip()}')
    yield folder
    subprocess.run(['umount', folder], check=True)


WRITE_TOO_MUCH = """
import sys
from pathlib import Path
import numpy as np
from apt_training.episodes.episode import *
from apt_training.episodes.write import EpisodeWriter
facts = EpisodeFacts(prompts=('x',), rate_hz=10.0, arms=('left',), cameras=('high',), contract=None,
                     label_source=LabelSource.MEASURED, source_hash='', converter_version='')
random = np.random.default_rng(0)
try:
    with EpisodeWriter(Path(sys.argv[1]), facts, storage=ImageStorage(sys.argv[2])) as writer:
        for step in range(200):
            view = CameraFrame(rgb=random.integers(0, 255, (128, 128, 3)).astype(np.uint8), mask=None,
                               intrinsics=np.eye(3), world_from_camera=np.eye(4))
            writer.append_frame(Frame(stamp_s=float(step), world_from_ee=np.eye(4)[None], gripper=np.zeros(1),
                             desired_world_from_ee=None, desired_gripper=None, views={'high': view}))
except OSError as error:
    print(error.errno, error)
"""


@pytest.mark.parametrize('storage', list(ImageStorage))
def test_a_full_disk_is_an_error_that_leaves_nothing_behind(small_disk, storage):
    ran = subprocess.run([sys.executable, '-c', WRITE_TOO_MUCH, small_disk / 'a.h5', storage.value], check=False,
                         capture_output=True, text=True, timeout=120,
                         env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)})
    # HDF5 that could not write crashes when the process ends.
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(f'{errno.ENOSPC} ') and 'a.' in ran.stdout
    assert not list(small_disk.iterdir())
