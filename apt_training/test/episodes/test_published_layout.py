"""Files of the published data tools, written and read with h5py and OpenCV alone."""

import av
import cv2
import h5py
import numpy as np
import pytest

from apt_policy.model.observation import normalised_pixels
from apt_training.episodes.episode import EpisodeError, ImageStorage, LabelSource, Subtask
from apt_training.episodes.read import Episode

COUNT, HEIGHT, WIDTH = 6, 24, 36
INTRINSICS = np.array([[40.0, 0, 18], [0, 41.0, 12], [0, 0, 1]], np.float32)


def chart() -> np.ndarray:
    """Return an RGB image (H, W, 3) with red, green and blue thirds."""
    rgb = np.full((HEIGHT, WIDTH, 3), 10, np.uint8)
    for channel in range(3):
        rgb[:, 12 * channel:12 * channel + 12, channel] = 220
    return rgb


def assert_chart(rgb: np.ndarray, tolerance: int = 3) -> None:
    for channel in range(3):
        patch = rgb[4:20, 12 * channel + 4:12 * channel + 8].reshape(-1, 3).astype(int).mean(0)
        assert np.abs(patch - np.where(np.arange(3) == channel, 220, 10)).max() <= tolerance


def write_states(file: h5py.File) -> None:
    """Write a single arm with time in steps, float32, like the published tools write LIBERO."""
    poses = np.tile(np.eye(4, dtype=np.float32), (COUNT, 1, 1))
    poses[:, 0, 3] = np.arange(COUNT)
    file['ee_pose'], file['gripper'] = poses, np.linspace(0, 1, COUNT, dtype=np.float32)
    file['timestamp'] = np.arange(COUNT, dtype=np.float32)
    file.attrs['prompt_text'] = 'open the drawer'
    file.attrs['prompt_text_2'] = ' pull the handle '
    file.attrs['prompt_text_3'] = ''


def write_jpegs(file: h5py.File, camera: str, images: list[np.ndarray]) -> None:
    encoded = [np.frombuffer(cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].data, np.uint8)
               for image in images]
    rgb = file.create_dataset(f'{camera}/rgb', shape=(len(images),), dtype=h5py.vlen_dtype(np.uint8))
    for index, data in enumerate(encoded):
        rgb[index] = data
    file[f'{camera}/K'] = INTRINSICS


def published_rgb(file: h5py.File, camera: str, index: int) -> np.ndarray:
    """Return (3, H, W) like the published reader: no conversion, a flip if is_bgr is set."""
    stored = file[camera]['rgb'][index]
    pixels = cv2.imdecode(stored, cv2.IMREAD_COLOR).transpose(2, 0, 1) if stored.ndim == 1 else stored
    return pixels[::-1] if file.attrs.get('is_bgr', False) else pixels


def test_a_libero_file_is_read(tmp_path):
    with h5py.File(tmp_path / 'a.h5', 'w') as file:
        write_states(file)
        write_jpegs(file, 'agentview', [chart()] * COUNT)
        file['agentview/pose'] = np.tile(np.eye(4, dtype=np.float32), (COUNT, 1, 1))
        file.attrs['compress'] = True
    episode = Episode(tmp_path / 'a.h5')
    episode.check()
    assert episode.world_from_ee.shape == (COUNT, 1, 4, 4) and episode.gripper.shape == (COUNT, 1)
    assert episode.world_from_ee[:, 0, 0, 3].tolist() == list(range(COUNT))
    assert episode.timestamps.tolist() == list(range(COUNT))
    assert episode.facts.prompts == ('open the drawer', 'pull the handle')
    assert (episode.facts.rate_hz, episode.facts.arms, episode.facts.cameras) == (1.0, ('arm_0',), ('agentview',))
    assert episode.facts.label_source is LabelSource.MEASURED and episode.facts.contract is None
    assert episode.view('agentview', 2).mask is None and episode.storage('agentview') is ImageStorage.JPEG


@pytest.mark.parametrize('is_bgr', [False, True])
@pytest.mark.parametrize('jpeg', [False, True])
def test_colours_are_right_whichever_order_the_file_says(tmp_path, jpeg, is_bgr):
    stored = chart()[..., ::-1] if is_bgr else chart()
    with h5py.File(tmp_path / 'a.h5', 'w') as file:
        write_states(file)
        if jpeg:
            write_jpegs(file, 'cam', [np.ascontiguousarray(stored)] * COUNT)
        else:
            file['cam/rgb'], file['cam/K'] = np.stack([stored.transpose(2, 0, 1)] * COUNT), INTRINSICS
        if is_bgr:
            file.attrs['is_bgr'] = True
        assert_chart(published_rgb(file, 'cam', 1).transpose(1, 2, 0))
    assert_chart(Episode(tmp_path / 'a.h5').view('cam', 1).rgb)


@pytest.mark.parametrize('storage', [ImageStorage.RAW, ImageStorage.JPEG])
def test_the_published_reader_sees_the_colours_of_our_files(tmp_path, write_episode, storage):
    write_episode(tmp_path / 'a.h5', storage=storage, width=96, count=3)
    with h5py.File(tmp_path / 'a.h5') as file:
        theirs = published_rgb(file, 'high', 2).transpose(1, 2, 0)
        assert file.attrs['compress'] == (storage is ImageStorage.JPEG)
    assert np.array_equal(theirs, Episode(tmp_path / 'a.h5').view('high', 2).rgb)
    assert theirs[16, 16].argmax() == 0 and theirs[16, 80].argmax() == 2


def test_our_jpegs_are_ordinary_files_that_any_viewer_shows_right(tmp_path, write_episode):
    write_episode(tmp_path / 'a.h5', width=96, count=1)
    with h5py.File(tmp_path / 'a.h5') as file:
        (tmp_path / 'frame.jpg').write_bytes(file['high/rgb'][0].tobytes())
    with av.open(str(tmp_path / 'frame.jpg')) as picture:
        rgb = next(picture.decode(video=0)).to_ndarray(format='rgb24')
    assert rgb[16, 16].argmax() == 0 and rgb[16, 80].argmax() == 2


def test_pixel_coordinates_are_those_that_the_published_tools_compute(tmp_path):
    with h5py.File(tmp_path / 'a.h5', 'w') as file:
        write_states(file)
        file['cam/rgb'], file['cam/K'] = np.zeros((COUNT, 3, HEIGHT, WIDTH), np.uint8), INTRINSICS
    intrinsics = Episode(tmp_path / 'a.h5').view('cam', 0).intrinsics
    ours = normalised_pixels(intrinsics, HEIGHT)
    theirs = (np.arange(HEIGHT) - 18) / 40, (np.arange(HEIGHT) - 12) / 41
    assert np.allclose(ours[0], np.broadcast_to(theirs[0], (HEIGHT, HEIGHT)), rtol=0, atol=1e-6)
    assert np.allclose(ours[1], np.broadcast_to(theirs[1][:, None], (HEIGHT, HEIGHT)), rtol=0, atol=1e-6)


def test_a_video_is_found_below_its_root(tmp_path):
    (tmp_path / 'videos' / 'left').mkdir(parents=True)
    with av.open(str(tmp_path / 'videos' / 'left' / 'a.mp4'), 'w') as container:
        stream = container.add_stream('libx264', rate=15)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, 'yuv420p'
        for index in range(COUNT):
            image = np.where(np.arange(HEIGHT)[:, None, None] < 4 * index, 240, chart()).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
        container.mux(stream.encode(None))
    with h5py.File(tmp_path / 'a.h5', 'w') as file:
        write_states(file)
        del file['timestamp']
        file['timestamp'] = np.arange(COUNT) / 15
        file.create_dataset('cam/rgb', data=['left/a.mp4'], dtype=h5py.string_dtype())
        file['cam/K'] = INTRINSICS
    episode = Episode(tmp_path / 'a.h5', video_root=tmp_path / 'videos')
    episode.check()
    for index in (5, 0, 3):
        rgb = episode.view('cam', index).rgb
        assert ((rgb[:, 18] > 180).all(-1).sum() - 4 * index) in (-1, 0, 1)
    assert_chart(episode.view('cam', 0).rgb, tolerance=12)
    with pytest.raises(EpisodeError, match=r'left/a\.mp4 does not exist.*video_root'):
        Episode(tmp_path / 'a.h5').check()


def test_a_camera_without_a_pose_stands_in_the_origin_and_that_is_said(tmp_path, caplog):
    with h5py.File(tmp_path / 'a.h5', 'w') as file:
        write_states(file)
        file['cam/rgb'], file['cam/K'] = np.zeros((COUNT, 3, HEIGHT, WIDTH), np.uint8), INTRINSICS
    assert np.array_equal(Episode(tmp_path / 'a.h5').view('cam', 3).world_from_camera, np.eye(4))
    assert 'has no pose' in caplog.text


def test_masks_arms_and_subtasks_of_a_published_file_are_read(tmp_path):
    with h5py.File(tmp_path / 'a.h5', 'w') as file:
        write_states(file)
        del file['ee_pose'], file['gripper']
        file['ee_pose'], file['gripper'] = np.tile(np.eye(4), (COUNT, 3, 1, 1)), np.zeros((COUNT, 3))
        file['ee_pose_desired'] = np.tile(np.eye(4), (COUNT, 3, 1, 1))
        file['cam/rgb'] = np.zeros((COUNT, 3, HEIGHT, WIDTH), np.uint8)
        file['cam/K'] = np.stack([INTRINSICS] * COUNT)
        file['cam/mask'] = np.arange(COUNT)[:, None, None] * np.ones((1, HEIGHT, WIDTH), np.int32)
        file.attrs['ee_indices'] = [1, 2]
        file['subtask_start_index'] = [0, 4]
        file.create_dataset('subtask_description', data=['reach', 'pull'], dtype=h5py.string_dtype())
    episode = Episode(tmp_path / 'a.h5')
    assert episode.facts.ee_indices == (1, 2) and len(episode.facts.arms) == 3
    assert episode.facts.label_source is LabelSource.TARGETS
    assert episode.facts.subtasks == (Subtask(start=0, description='reach'), Subtask(start=4, description='pull'))
    assert episode.prompt(4, 1) == 'pull the handle. pull'
    assert not episode.view('cam', 0).mask.any() and episode.view('cam', 1).mask.all()
    assert episode.desired_world_from_ee is not None and episode.desired_gripper is None
