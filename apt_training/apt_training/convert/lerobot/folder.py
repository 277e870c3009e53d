"""Reader of a LeRobotDataset folder, v2.0, v2.1 or v3.

The lerobot package is not needed. Layout after huggingface/lerobot, ``datasets/utils.py`` and
``scripts/convert_dataset_v21_to_v30.py``.

Letters: T rows of an episode, D columns of a feature.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from apt_training.convert.lerobot.files import LerobotError, read_json, read_jsonl, read_table
from apt_training.convert.lerobot.video import read_frames

INFO, EPISODES, TASKS = 'meta/info.json', 'meta/episodes.jsonl', 'meta/tasks.jsonl'
EPISODES_V3, TASKS_V3 = 'meta/episodes', 'meta/tasks.parquet'
_COUNTERS = ('timestamp', 'frame_index', 'episode_index', 'task_index')


@dataclass(frozen=True, kw_only=True)
class ImageLocation:
    """Location of the images of one camera in one episode."""

    key: str
    """Name of the feature."""
    video: Path | None
    """Video file; None: the images are in the rows."""
    start_s: float
    """Time of the episode's first row in the video [s]."""


@dataclass(frozen=True, kw_only=True)
class EpisodeEntry:
    """Location of one episode."""

    index: int
    """Index in the dataset."""
    length: int
    """Number of rows T."""
    tasks: tuple[str, ...]
    """Task descriptions."""
    data: Path
    """Parquet file with its rows."""
    images: Mapping[str, ImageLocation]
    """Locations of its images by name of the feature."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Files of the episode."""
        videos = (location.video for location in self.images.values())
        return (self.data, *(video for video in videos if video is not None))


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeRows:
    """Rows of one episode."""

    timestamps: NDArray[np.float64]
    """Times since the start of the episode (T,) [s]."""
    tasks: tuple[str, ...]
    """Task of each row (T,)."""
    values: Mapping[str, NDArray[np.float64]]
    """Requested features, each (T, D)."""
    images: Mapping[str, Sequence[Any]]
    """Requested image features, each (T,) mappings with ``bytes`` or ``path``."""


class LerobotFolder:
    """LeRobotDataset folder; opening it reads ``meta/`` only."""

    def __init__(self, root: Path) -> None:
        """Read the metadata.

        Raises:
            LerobotError: the folder is no dataset, is incomplete or has an unknown version.
        """
        self.root = Path(root)
        self._info = read_json(self.root / INFO)
        version = str(self._info.get('codebase_version', ''))
        if not version.startswith(('v2.0', 'v2.1', 'v3.')):
            raise LerobotError(f'{self.root / INFO} has codebase_version {version!r}, expected v2.0, v2.1 or v3.x: '
                               'convert the dataset to v3.0 with the scripts of lerobot')
        self.is_v3 = version.startswith('v3.')
        self.version = version
        for name in ('fps', 'features', 'data_path'):
            if not self._info.get(name):
                raise LerobotError(f'{self.root / INFO} has no {name!r}: copy the dataset again')
        self.fps = float(self._info['fps'])
        self._tasks = self._read_tasks()

    @property
    def image_keys(self) -> tuple[str, ...]:
        """Features that are colour images."""
        return tuple(key for key, feature in self._features.items()
                     if feature.get('dtype') in ('video', 'image') and not _is_depth(feature))

    def columns(self, key: str) -> tuple[str, ...]:
        """Return the names of the columns of a feature; their numbers as text if it has no names.

        Raises:
            LerobotError: the feature does not exist.
        """
        feature = self._feature(key)
        width = int(np.prod(feature.get('shape') or [1]))
        names = tuple(_flatten(feature.get('names')))
        return names if len(names) == width else tuple(map(str, range(width)))

    def has_feature(self, key: str) -> bool:
        """Return whether the dataset has a feature."""
        return key in self._features

    def episodes(self) -> Iterator[EpisodeEntry]:
        """Return the episodes in order of their index."""
        return self._episodes_v3() if self.is_v3 else self._episodes_v2()

    def rows(self, episode: EpisodeEntry, values: Sequence[str], images: Sequence[str]) -> EpisodeRows:
        """Read the rows of an episode.

        Args:
            episode: the episode.
            values: features to read as numbers.
            images: image features; those stored in the rows are read.

        Raises:
            LerobotError: the file is missing or damaged, a feature or rows are missing, or the timestamps do not
                have the rate ``fps``.
        """
        in_rows = [key for key in images if episode.images[key].video is None]
        table = read_table(episode.data, [*_COUNTERS, *values, *in_rows],
                            rows=[('episode_index', '==', episode.index)])
        if table.num_rows != episode.length:
            raise LerobotError(f'{episode.data} has {table.num_rows} rows of episode {episode.index}, expected '
                               f'{episode.length} by meta/: copy the dataset again')
        timestamps = np.asarray(table['timestamp'].to_pylist(), np.float64).reshape(-1)
        self._check_time(episode, timestamps, np.asarray(table['frame_index'].to_pylist()).reshape(-1))
        return EpisodeRows(timestamps=timestamps,
                    tasks=tuple(self._task(episode, int(index)) for index in
                                np.asarray(table['task_index'].to_pylist()).reshape(-1)),
                    values={key: _numbers(table[key].to_pylist(), key, episode) for key in values},
                    images={key: table[key].to_pylist() for key in in_rows})

    def frames(self, episode: EpisodeEntry, rows: EpisodeRows, key: str, selected: Sequence[int]
               ) -> Iterator[NDArray[np.uint8]]:
        """Yield the images of selected rows, each (H, W, 3) uint8 RGB.

        Args:
            episode: the episode.
            rows: its rows.
            key: image feature.
            selected: numbers of rows, which do not decrease.

        Raises:
            LerobotError: an image is missing or damaged.
        """
        location = episode.images[key]
        if location.video is not None:
            times_s = (location.start_s + rows.timestamps[list(selected)]).tolist()
            yield from read_frames(location.video, times_s, self.fps)
            return
        for row in selected:
            yield self._decode_image(episode, key, row, rows.images[key][row])

    @property
    def _features(self) -> Mapping[str, Any]:
        return self._info['features']

    def _feature(self, key: str) -> Mapping[str, Any]:
        if key not in self._features:
            raise LerobotError(f'{self.root / INFO} has no feature {key!r}; it has '
                               f'{", ".join(self._features)}: correct the map (--lerobot-map)')
        return self._features[key]

    def _read_tasks(self) -> dict[int, str]:
        if not self.is_v3:
            rows = read_jsonl(self.root / TASKS)
            return {int(row['task_index']): str(row['task']) for row in rows}
        table = read_table(self.root / TASKS_V3, None).to_pydict()
        # The text is the index of the data frame, which earlier writers did not name.
        texts = next((table[name] for name in ('task', '__index_level_0__') if name in table), None)
        if texts is None or 'task_index' not in table:
            raise LerobotError(f'{self.root / TASKS_V3} has columns {", ".join(table)}, expected task and task_index')
        return dict(zip(table['task_index'], map(str, texts), strict=True))

    def _task(self, episode: EpisodeEntry, index: int) -> str:
        if index not in self._tasks:
            raise LerobotError(f'{episode.data}: episode {episode.index} has task_index {index}, which '
                               f'{self.root / "meta"} does not list: copy meta/ again')
        return self._tasks[index]

    def _episodes_v2(self) -> Iterator[EpisodeEntry]:
        size = int(self._info.get('chunks_size') or 1000)
        for row in sorted(read_jsonl(self.root / EPISODES), key=lambda row: row['episode_index']):
            index = int(row['episode_index'])
            place = {'episode_chunk': index // size, 'episode_index': index}
            images = {key: ImageLocation(key=key, start_s=0.0, video=self._video(key, place))
                      for key in self.image_keys}
            yield EpisodeEntry(index=index, length=int(row['length']), tasks=tuple(row.get('tasks') or ()),
                               data=self.root / self._info['data_path'].format(**place), images=images)

    def _episodes_v3(self) -> Iterator[EpisodeEntry]:
        files = sorted((self.root / EPISODES_V3).glob('*/*.parquet'))
        if not files:
            raise LerobotError(f'{self.root / EPISODES_V3} has no parquet file: copy the whole meta/')
        rows = [row for file in files for row in read_table(file, None).to_pylist()]
        for row in sorted(rows, key=lambda row: row['episode_index']):
            place = {'chunk_index': row['data/chunk_index'], 'file_index': row['data/file_index']}
            yield EpisodeEntry(index=int(row['episode_index']), length=int(row['length']),
                               tasks=tuple(row.get('tasks') or ()),
                               data=self.root / self._info['data_path'].format(**place),
                               images={key: self._image_location_v3(key, row) for key in self.image_keys})

    def _image_location_v3(self, key: str, row: Mapping[str, Any]) -> ImageLocation:
        if self._features[key]['dtype'] == 'image':
            return ImageLocation(key=key, start_s=0.0, video=None)
        try:
            place = {'chunk_index': row[f'videos/{key}/chunk_index'], 'file_index': row[f'videos/{key}/file_index']}
            start_s = float(row[f'videos/{key}/from_timestamp'])
        except KeyError as error:
            raise LerobotError(f'{self.root / EPISODES_V3}: episode {row["episode_index"]} has no {error}: '
                               'copy meta/ again') from error
        return ImageLocation(key=key, start_s=start_s, video=self._video(key, place))

    def _video(self, key: str, place: Mapping[str, int]) -> Path | None:
        if self._features[key]['dtype'] == 'image':
            return None
        if not self._info.get('video_path'):
            raise LerobotError(f'{self.root / INFO} has the video feature {key!r} but no video_path: copy it again')
        return self.root / self._info['video_path'].format(video_key=key, **place)

    def _check_time(self, episode: EpisodeEntry, timestamps: NDArray[np.float64], frames: NDArray[np.int64]) -> None:
        errors_s = np.abs((timestamps - timestamps[0]) - (frames - frames[0]) / self.fps)
        if not (np.diff(timestamps) > 0).all() or errors_s.max() > 0.5 / self.fps:
            row = int(errors_s.argmax())
            raise LerobotError(f'{episode.data}: episode {episode.index}, row {row} is at {timestamps[row]:.3f} s, '
                               f'expected {timestamps[0] + (frames[row] - frames[0]) / self.fps:.3f} s at the fps '
                               f'{self.fps:g} of meta/info.json: correct fps')

    def _decode_image(self, episode: EpisodeEntry, key: str, row: int, cell: Mapping[str, Any] | None
                 ) -> NDArray[np.uint8]:
        data, path = (cell or {}).get('bytes'), (cell or {}).get('path')
        if data is None and path and (self.root / path).exists():
            data = (self.root / path).read_bytes()
        image = None if not data else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise LerobotError(f'{episode.data}: episode {episode.index}, row {row}: {key} has no readable image: '
                               'copy the file again')
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _numbers(cells: Sequence[Any], key: str, episode: EpisodeEntry) -> NDArray[np.float64]:
    """Return cells as finite numbers (T, D).

    Raises:
        LerobotError: a number is not finite.
    """
    values = np.asarray(cells, np.float64).reshape(len(cells), -1)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise LerobotError(f'{episode.data}: episode {episode.index}, row {bad[0, 0]}: {key}[{bad[0, 1]}] is not '
                           'finite: remove the episode')
    return values


def _is_depth(feature: Mapping[str, Any]) -> bool:
    notes = {**(feature.get('video_info') or {}), **(feature.get('info') or {})}
    return bool(notes.get('video.is_depth_map') or notes.get('is_depth_map'))


def _flatten(names: Any) -> Iterator[str]:
    """Yield the column names in a list, a list of lists, or a mapping of lists, in order."""
    if isinstance(names, str):
        yield names
    elif isinstance(names, Mapping):
        yield from _flatten(list(names.values()))
    elif names is not None:
        for part in names:
            yield from _flatten(part)
