"""Small LeRobot datasets of the true layouts, written with pyarrow and PyAV as lerobot itself lays them out."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

JOINTS = ('waist', 'shoulder', 'elbow', 'forearm_roll', 'wrist_angle', 'wrist_rotate', 'gripper')
NAMES = tuple(f'{arm}_{joint}' for arm in ('left', 'right') for joint in JOINTS)
CAMERAS = ('cam_high', 'cam_low', 'cam_left_wrist', 'cam_right_wrist')
SIDE = (48, 64)


def colour_of(camera: int, row: int) -> np.ndarray:
    """Return (3,) RGB, which changes slowly enough for video compression to keep it within a few levels."""
    return np.array([40 + 4 * row, 60 + 40 * camera, 200 - 3 * row], np.uint8)


def picture(camera: int, row: int, size: tuple[int, int] = SIDE) -> np.ndarray:
    return np.broadcast_to(colour_of(camera, row), (*size, 3)).copy()


@dataclass
class SyntheticDataset:
    """Properties of a dataset; tests change single fields."""

    version: str = 'v2.1'
    fps: int = 50
    lengths: Sequence[int] = (26, 21)
    tasks: Sequence[str] = ('pick the cube', 'open the drawer')
    names: Any = field(default_factory=lambda: [list(NAMES)])
    columns: Sequence[str] = NAMES
    """Order of the columns in the data; ``names`` may differ."""
    cameras: Sequence[str] = CAMERAS
    as_video: bool = True
    codec: str = 'libx264'
    video_fps: float | None = None
    with_action: bool = True
    task_change: int | None = None
    """Row from which an episode has the other task."""
    unnamed_task_index: bool = False


def joints_at(episode: int, row: int) -> dict[str, float]:
    values = {}
    for place, name in enumerate(NAMES):
        values[name] = 0.02 * row * (1 if place % 2 else -1) / len(NAMES) + 0.1 * episode + 0.01 * place
        if name.endswith('gripper'):
            values[name] = row % 11 / 10
    return values


def state_of(episode: int, row: int, columns: Sequence[str], ahead: float = 0.0) -> list[float]:
    values = joints_at(episode, row)
    return [values[name] + ahead * (not name.endswith('gripper')) for name in columns]


@pytest.fixture(scope='session')
def dataset() -> SimpleNamespace:
    """Return the values in every dataset of ``write_lerobot``, for comparison."""
    return SimpleNamespace(NAMES=NAMES, CAMERAS=CAMERAS, SIDE=SIDE, state_of=state_of, colour_of=colour_of)


@pytest.fixture
def write_lerobot(tmp_path: Path) -> Callable[..., Path]:
    """Write a dataset folder; keyword arguments change the dataset."""
    def write(name: str = 'aloha_test', **changes: Any) -> Path:
        dataset, root = SyntheticDataset(**changes), tmp_path / name
        (root / 'meta').mkdir(parents=True)
        _write_info(root, dataset)
        (_write_v3 if dataset.version.startswith('v3') else _write_v2)(root, dataset)
        return root
    return write


@pytest.fixture
def calibration_file(tmp_path: Path) -> Path:
    """Write a file with intrinsics of all cameras and mounts of wrist cameras."""
    pinhole = '{size: [64, 48], fx: 50.0, fy: 52.0, cx: 31.5, cy: 23.5}'
    mount = 'ee_from_camera: {translation: [-0.05, 0.0, 0.1], quaternion_xyzw: [-0.5, 0.5, -0.5, 0.5]}'
    text = (f'cam_high: {pinhole}\ncam_low: {{horizontal_fov_deg: 69.0}}\n'
            f'cam_left_wrist: {{horizontal_fov_deg: 69.0, {mount}}}\n'
            f'cam_right_wrist: {{horizontal_fov_deg: 69.0, {mount}}}\n')
    path = tmp_path / 'intrinsics.yaml'
    path.write_text(text)
    return path


def _write_info(root: Path, dataset: SyntheticDataset) -> None:
    v3 = dataset.version.startswith('v3')
    scalar = {'shape': [1], 'names': None}
    features: dict[str, Any] = {'observation.state': {'dtype': 'float32', 'shape': [len(dataset.columns)],
                                                      'names': dataset.names}}
    if dataset.with_action:
        features['action'] = dict(features['observation.state'])
    for camera in dataset.cameras:
        features[f'observation.images.{camera}'] = {
            'dtype': 'video' if dataset.as_video else 'image', 'shape': [*SIDE, 3],
            'names': ['height', 'width', 'channel'], 'info': {'video.fps': dataset.fps, 'video.is_depth_map': False}}
    features |= {key: {'dtype': 'int64', **scalar} for key in ('frame_index', 'episode_index', 'index', 'task_index')}
    features['timestamp'] = {'dtype': 'float32', **scalar}
    info = {'codebase_version': dataset.version, 'robot_type': 'aloha', 'fps': dataset.fps, 'chunks_size': 1000,
            'total_episodes': len(dataset.lengths), 'total_frames': sum(dataset.lengths), 'splits': {},
            'features': features}
    if v3:
        info |= {'data_path': 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet',
                 'video_path': 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4'}
    else:
        info |= {'data_path': 'data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet',
                 'video_path': 'videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4'}
    if not dataset.as_video:
        info['video_path'] = None
    (root / 'meta/info.json').write_text(json.dumps(info, indent=4))


def _rows(dataset: SyntheticDataset, episode: int, first_index: int) -> dict[str, list[Any]]:
    length = dataset.lengths[episode]
    rows: dict[str, list[Any]] = {
        'observation.state': [state_of(episode, row, dataset.columns) for row in range(length)],
        'timestamp': [row / dataset.fps for row in range(length)], 'frame_index': list(range(length)),
        'episode_index': [episode] * length, 'index': list(range(first_index, first_index + length)),
        'task_index': [episode if dataset.task_change is None or row < dataset.task_change else 1 - episode
                       for row in range(length)]}
    if dataset.with_action:
        rows['action'] = [state_of(episode, row, dataset.columns, ahead=0.05) for row in range(length)]
    if not dataset.as_video:
        for place, camera in enumerate(dataset.cameras):
            rows[f'observation.images.{camera}'] = [{'bytes': _png(picture(place, row)), 'path': None}
                                                    for row in range(length)]
    return rows


def _schema(dataset: SyntheticDataset) -> pa.Schema:
    vector, image = pa.list_(pa.float32()), pa.struct([('bytes', pa.binary()), ('path', pa.string())])
    fields = [('observation.state', vector), ('timestamp', pa.float32()), ('frame_index', pa.int64()),
              ('episode_index', pa.int64()), ('index', pa.int64()), ('task_index', pa.int64())]
    if dataset.with_action:
        fields.append(('action', vector))
    if not dataset.as_video:
        fields += [(f'observation.images.{camera}', image) for camera in dataset.cameras]
    return pa.schema(fields)


def _write_v2(root: Path, dataset: SyntheticDataset) -> None:
    first, meta = 0, root / 'meta'
    lines = [{'episode_index': i, 'tasks': [dataset.tasks[i]], 'length': n} for i, n in enumerate(dataset.lengths)]
    (meta / 'episodes.jsonl').write_text('\n'.join(map(json.dumps, lines)) + '\n')
    tasks = [{'task_index': i, 'task': task} for i, task in enumerate(dataset.tasks)]
    (meta / 'tasks.jsonl').write_text('\n'.join(map(json.dumps, tasks)) + '\n')
    for episode, length in enumerate(dataset.lengths):
        path = root / f'data/chunk-000/episode_{episode:06d}.parquet'
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.table(_rows(dataset, episode, first), schema=_schema(dataset)), path)
        first += length
        if dataset.as_video:
            for place, camera in enumerate(dataset.cameras):
                _write_video(root / f'videos/chunk-000/observation.images.{camera}/episode_{episode:06d}.mp4',
                             [picture(place, row) for row in range(length)], dataset)


def _write_v3(root: Path, dataset: SyntheticDataset) -> None:
    tables, rows, first = [], [], 0
    for episode, length in enumerate(dataset.lengths):
        tables.append(pa.table(_rows(dataset, episode, first), schema=_schema(dataset)))
        row: dict[str, Any] = {
            'episode_index': episode, 'tasks': [dataset.tasks[episode]], 'length': length, 'data/chunk_index': 0,
            'data/file_index': 0, 'dataset_from_index': first, 'dataset_to_index': first + length,
            'stats/observation.state/mean': [0.0]}
        for camera in dataset.cameras if dataset.as_video else ():
            key = f'videos/observation.images.{camera}'
            row |= {f'{key}/chunk_index': 0, f'{key}/file_index': 0, f'{key}/from_timestamp': first / dataset.fps,
                    f'{key}/to_timestamp': (first + length) / dataset.fps}
        rows.append(row)
        first += length
    for path, table in (('data/chunk-000/file-000.parquet', pa.concat_tables(tables)),
                        ('meta/episodes/chunk-000/file-000.parquet', pa.Table.from_pylist(rows)),
                        ('meta/tasks.parquet', pa.table({
                            'task_index': list(range(len(dataset.tasks))),
                            '__index_level_0__' if dataset.unnamed_task_index else 'task': list(dataset.tasks)}))):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, root / path)
    for place, camera in enumerate(dataset.cameras if dataset.as_video else ()):
        frames = [picture(place, row) for length in dataset.lengths for row in range(length)]
        _write_video(root / f'videos/observation.images.{camera}/chunk-000/file-000.mp4', frames, dataset)


def _write_video(path: Path, frames: Sequence[np.ndarray], dataset: SyntheticDataset) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = Fraction(dataset.video_fps or dataset.fps).limit_denominator(1000)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(dataset.codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], 'yuv420p'
        stream.options = {'g': '2', 'crf': '10' if dataset.codec == 'libx264' else '20'}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode(None))


def _png(rgb: np.ndarray) -> bytes:
    done, data = cv2.imencode('.png', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    assert done
    return data.tobytes()


@pytest.fixture(scope='session')
def aloha_file() -> Path:
    """Return the shipped contract of the real robot."""
    return Path(__file__).resolve().parents[3] / 'apt_bringup/config/aloha.yaml'
