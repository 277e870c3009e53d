"""A LeRobotDataset folder, v2.0, v2.1 or v3, as it lies on disk.

Answers where an episode's rows and pictures are; what a column means for a robot is decided
elsewhere. Read with pyarrow, without the lerobot package. Layout after huggingface/lerobot,
``datasets/utils.py`` and ``scripts/convert_dataset_v21_to_v30.py``.

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
class Pictures:
    """Where the images of one camera in one episode are."""

    key: str
    """Name of the feature."""
    video: Path | None
    """None: inside the rows."""
    start_s: float
    """Time of the episode's first row in the video [s]."""


@dataclass(frozen=True, kw_only=True)
class EpisodeEntry:
    """One episode of the folder."""

    index: int
    length: int
    """Rows (T)."""
    tasks: tuple[str, ...]
    data: Path
    pictures: Mapping[str, Pictures]
    """By name of the feature."""

    @property
    def files(self) -> tuple[Path, ...]:
        """What it is made of."""
        videos = (pictures.video for pictures in self.pictures.values())
        return (self.data, *(video for video in videos if video is not None))


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """The table of one episode."""

    timestamps: NDArray[np.float64]
    """(T,) as the dataset counts them: since the start of the episode [s]."""
    tasks: tuple[str, ...]
    """(T,) the task in force at each row."""
    values: Mapping[str, NDArray[np.float64]]
    """Features that were asked for, (T, D)."""
    images: Mapping[str, Sequence[Any]]
    """Image features that were asked for: (T,) mappings with ``bytes`` or ``path``."""


class LerobotFolder:
    """A dataset folder; opening it reads ``meta/`` only."""

    def __init__(self, root: Path) -> None:
        """Read the facts.

        Raises:
            LerobotError: not a dataset, of an unknown version, or incomplete.
        """
        self.root = Path(root)
        self._info = read_json(self.root / INFO)
        version = str(self._info.get('codebase_version', ''))
        if not version.startswith(('v2.0', 'v2.1', 'v3.')):
            raise LerobotError(f'{self.root / INFO} says codebase_version {version!r}; v2.0, v2.1 and v3.x are read. '
                               'Bring it to v3.0 with the converters that lerobot ships (lerobot/scripts)')
        self.is_v3 = version.startswith('v3.')
        self.version = version
        for name in ('fps', 'features', 'data_path'):
            if not self._info.get(name):
                raise LerobotError(f'{self.root / INFO} has no {name!r}; copy the dataset again')
        self.fps = float(self._info['fps'])
        self._tasks = self._read_tasks()

    @property
    def image_keys(self) -> tuple[str, ...]:
        """Features that are colour pictures."""
        return tuple(key for key, feature in self._features.items()
                     if feature.get('dtype') in ('video', 'image') and not _is_depth(feature))

    def columns(self, key: str) -> tuple[str, ...]:
        """Names of a feature's columns; their numbers as text where it names none.

        Raises:
            LerobotError: no such feature.
        """
        feature = self._feature(key)
        width = int(np.prod(feature.get('shape') or [1]))
        names = tuple(_flatten(feature.get('names')))
        return names if len(names) == width else tuple(map(str, range(width)))

    def has(self, key: str) -> bool:
        """Whether there is a feature of that name."""
        return key in self._features

    def episodes(self) -> Iterator[EpisodeEntry]:
        """In order of their index."""
        return self._episodes_v3() if self.is_v3 else self._episodes_v2()

    def rows(self, episode: EpisodeEntry, values: Sequence[str], images: Sequence[str]) -> Rows:
        """The episode's table: ``values`` as numbers, and of ``images`` those that lie in it.

        Raises:
            LerobotError: the file is missing or damaged, a feature is absent, rows are missing, or time runs
                at another rate than ``fps``.
        """
        inside = [key for key in images if episode.pictures[key].video is None]
        table = read_table(episode.data, [*_COUNTERS, *values, *inside],
                            rows=[('episode_index', '==', episode.index)])
        if table.num_rows != episode.length:
            raise LerobotError(f'{episode.data} has {table.num_rows} rows of episode {episode.index}, meta/ says '
                               f'{episode.length}; copy the dataset again')
        timestamps = np.asarray(table['timestamp'].to_pylist(), np.float64).reshape(-1)
        self._check_time(episode, timestamps, np.asarray(table['frame_index'].to_pylist()).reshape(-1))
        return Rows(timestamps=timestamps,
                    tasks=tuple(self._task(episode, int(index)) for index in
                                np.asarray(table['task_index'].to_pylist()).reshape(-1)),
                    values={key: _numbers(table[key].to_pylist(), key, episode) for key in values},
                    images={key: table[key].to_pylist() for key in inside})

    def frames(self, episode: EpisodeEntry, rows: Rows, key: str, picked: Sequence[int]
               ) -> Iterator[NDArray[np.uint8]]:
        """(H, W, 3) uint8, red first, of the ``picked`` rows, which increase.

        Raises:
            LerobotError: naming the file.
        """
        pictures = episode.pictures[key]
        if pictures.video is not None:
            times_s = (pictures.start_s + rows.timestamps[list(picked)]).tolist()
            yield from read_frames(pictures.video, times_s, self.fps)
            return
        for row in picked:
            yield self._picture(episode, key, row, rows.images[key][row])

    @property
    def _features(self) -> Mapping[str, Any]:
        return self._info['features']

    def _feature(self, key: str) -> Mapping[str, Any]:
        if key not in self._features:
            raise LerobotError(f'{self.root / INFO} has no feature {key!r}; it has '
                               f'{", ".join(self._features)}: name the right one in the map (--lerobot-map)')
        return self._features[key]

    def _read_tasks(self) -> dict[int, str]:
        if not self.is_v3:
            rows = read_jsonl(self.root / TASKS)
            return {int(row['task_index']): str(row['task']) for row in rows}
        table = read_table(self.root / TASKS_V3, None).to_pydict()
        # The text is the data frame's index, which earlier writers left without a name.
        texts = next((table[name] for name in ('task', '__index_level_0__') if name in table), None)
        if texts is None or 'task_index' not in table:
            raise LerobotError(f'{self.root / TASKS_V3} has columns {", ".join(table)}; expected task and task_index')
        return dict(zip(table['task_index'], map(str, texts), strict=True))

    def _task(self, episode: EpisodeEntry, index: int) -> str:
        if index not in self._tasks:
            raise LerobotError(f'{episode.data}: episode {episode.index} has task_index {index}, which the list of '
                               f'tasks in {self.root / "meta"} lacks; copy meta/ again')
        return self._tasks[index]

    def _episodes_v2(self) -> Iterator[EpisodeEntry]:
        size = int(self._info.get('chunks_size') or 1000)
        for row in sorted(read_jsonl(self.root / EPISODES), key=lambda row: row['episode_index']):
            index = int(row['episode_index'])
            place = {'episode_chunk': index // size, 'episode_index': index}
            pictures = {key: Pictures(key=key, start_s=0.0, video=self._video(key, place)) for key in self.image_keys}
            yield EpisodeEntry(index=index, length=int(row['length']), tasks=tuple(row.get('tasks') or ()),
                               data=self.root / self._info['data_path'].format(**place), pictures=pictures)

    def _episodes_v3(self) -> Iterator[EpisodeEntry]:
        files = sorted((self.root / EPISODES_V3).glob('*/*.parquet'))
        if not files:
            raise LerobotError(f'{self.root / EPISODES_V3} holds no parquet file; copy meta/ whole')
        rows = [row for file in files for row in read_table(file, None).to_pylist()]
        for row in sorted(rows, key=lambda row: row['episode_index']):
            place = {'chunk_index': row['data/chunk_index'], 'file_index': row['data/file_index']}
            yield EpisodeEntry(index=int(row['episode_index']), length=int(row['length']),
                               tasks=tuple(row.get('tasks') or ()),
                               data=self.root / self._info['data_path'].format(**place),
                               pictures={key: self._pictures_v3(key, row) for key in self.image_keys})

    def _pictures_v3(self, key: str, row: Mapping[str, Any]) -> Pictures:
        if self._features[key]['dtype'] == 'image':
            return Pictures(key=key, start_s=0.0, video=None)
        try:
            place = {'chunk_index': row[f'videos/{key}/chunk_index'], 'file_index': row[f'videos/{key}/file_index']}
            start_s = float(row[f'videos/{key}/from_timestamp'])
        except KeyError as error:
            raise LerobotError(f'{self.root / EPISODES_V3}: episode {row["episode_index"]} lacks {error}; '
                               'copy meta/ again') from error
        return Pictures(key=key, start_s=start_s, video=self._video(key, place))

    def _video(self, key: str, place: Mapping[str, int]) -> Path | None:
        if self._features[key]['dtype'] == 'image':
            return None
        if not self._info.get('video_path'):
            raise LerobotError(f'{self.root / INFO} has the video feature {key!r} but no video_path; copy it again')
        return self.root / self._info['video_path'].format(video_key=key, **place)

    def _check_time(self, episode: EpisodeEntry, timestamps: NDArray[np.float64], frames: NDArray[np.int64]) -> None:
        off = np.abs((timestamps - timestamps[0]) - (frames - frames[0]) / self.fps)
        if not (np.diff(timestamps) > 0).all() or off.max() > 0.5 / self.fps:
            row = int(off.argmax())
            raise LerobotError(f'{episode.data}: episode {episode.index}, row {row} is at {timestamps[row]:.3f} s; '
                               f'at the fps {self.fps:g} of meta/info.json it should be '
                               f'{timestamps[0] + (frames[row] - frames[0]) / self.fps:.3f} s: correct fps')

    def _picture(self, episode: EpisodeEntry, key: str, row: int, cell: Mapping[str, Any] | None
                 ) -> NDArray[np.uint8]:
        data, path = (cell or {}).get('bytes'), (cell or {}).get('path')
        if data is None and path and (self.root / path).exists():
            data = (self.root / path).read_bytes()
        picture = None if not data else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            raise LerobotError(f'{episode.data}: episode {episode.index}, row {row}: {key} holds no readable image; '
                               'copy the file again')
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def _numbers(cells: Sequence[Any], key: str, episode: EpisodeEntry) -> NDArray[np.float64]:
    """(T, D), finite."""
    values = np.asarray(cells, np.float64).reshape(len(cells), -1)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise LerobotError(f'{episode.data}: episode {episode.index}, row {bad[0, 0]}: {key}[{bad[0, 1]}] is not '
                           'finite; leave that episode out')
    return values


def _is_depth(feature: Mapping[str, Any]) -> bool:
    notes = {**(feature.get('video_info') or {}), **(feature.get('info') or {})}
    return bool(notes.get('video.is_depth_map') or notes.get('is_depth_map'))


def _flatten(names: Any) -> Iterator[str]:
    """Of a list, a list of lists, or a mapping of lists: the column names in order."""
    if isinstance(names, str):
        yield names
    elif isinstance(names, Mapping):
        yield from _flatten(list(names.values()))
    elif names is not None:
        for part in names:
            yield from _flatten(part)
