"""Reader of episode files of this suite or the published data tools.

A file is opened at the first access and stays open until :meth:`Episode.close`. Small arrays are read once; images are
decoded one at a time. All values are checked.

Letters: T frames, A arms, H, W image.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from apt_training.episodes import layout
from apt_training.episodes.check import check_facts, check_grippers, check_poses, check_shape
from apt_training.episodes.episode import CameraFrame, EpisodeError, EpisodeFacts, ImageStorage, LabelSource, Subtask
from apt_training.episodes.read_camera import CameraReader

Array = NDArray[np.float64]

_FACTS_BYTES = 1 << 15
"""Approximate size of the attributes of an episode, mostly its contract [B]."""
_CHUNK_CACHE = 1 << 16
"""Chunk cache per dataset [B]: enough for the index of JPEG files. Images are read once, so none is cached."""


class Episode:
    """Episode file; picklable, and usable in both processes after a fork."""

    def __init__(self, path: Path, *, video_root: Path | None = None) -> None:
        """Store the path; the file is opened at the first access.

        Args:
            path: episode file.
            video_root: folder to which the names of its videos are relative; None: the folder of the file.
        """
        self.path = Path(path)
        self.video_root = self.path.parent if video_root is None else Path(video_root)
        self._file: h5py.File | None = None
        self._pid = 0
        self._identity: tuple[int, ...] | None = None

    def __enter__(self) -> 'Episode':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {'path': self.path, 'video_root': self.video_root, '_file': None, '_pid': 0, '_identity': None}

    def __len__(self) -> int:
        return len(self.world_from_ee)

    @property
    def nbytes(self) -> int:
        """Approximate size of the cached values [B]."""
        arrays = sum(value.nbytes for value in self.__dict__.values() if isinstance(value, np.ndarray))
        return _FACTS_BYTES + arrays + sum(reader.nbytes for reader in self._cameras.values())

    def close_file(self) -> None:
        """Close the file and keep cached values; access to pixels opens it again."""
        file, mine = self._file, self._pid == os.getpid()
        self._file = None
        if file is not None and mine:
            file.close()

    def close(self) -> None:
        """Close the file and drop cached values; the next access opens it again."""
        file, mine = self._file, self._pid == os.getpid()
        self.__dict__ = self.__getstate__()
        if file is not None and mine:
            file.close()

    @cached_property
    def facts(self) -> EpisodeFacts:
        """Facts of the whole episode; those that a published file lacks are inferred.

        Raises:
            EpisodeError: the file is no episode file.
        """
        with self._reading('attributes') as file:
            attributes = dict(file.attrs)
            cameras = [name for name in file if isinstance(file[name], h5py.Group) and layout.RGB in file[name]]
            subtasks = _subtasks(file)
            desired = layout.EE_POSE_DESIRED in file or layout.GRIPPER_DESIRED in file
        source = attributes.get(layout.LABEL_SOURCE)
        contract = attributes.get(layout.CONTRACT)
        indices = attributes.get(layout.EE_INDICES)
        try:
            facts = EpisodeFacts(
                prompts=_prompts(attributes), subtasks=subtasks,
                rate_hz=float(attributes.get(layout.RATE, 0.0)) or _rate(self._since_start),
                arms=_names(attributes.get(layout.ARMS)) or tuple(f'arm_{i}' for i in range(self._arm_count)),
                cameras=_names(attributes.get(layout.CAMERAS)) or tuple(sorted(cameras)),
                label_source=LabelSource(source) if source is not None
                else LabelSource.TARGETS if desired else LabelSource.MEASURED,
                contract=None if contract is None else json.loads(contract),
                source_hash=str(attributes.get(layout.SOURCE_HASH, '')),
                converter_version=str(attributes.get(layout.CONVERTER, '')),
                ee_indices=None if indices is None else tuple(int(i) for i in np.atleast_1d(indices)))
        except (ValueError, TypeError) as error:
            raise EpisodeError(f'{self.path}: cannot read its attributes: {error}') from error
        check_facts(facts, str(self.path))
        check_shape(np.empty(self._arm_count), (len(facts.arms),), f'{self.path}, {layout.EE_POSE} per frame')
        return facts

    @cached_property
    def world_from_ee(self) -> Array:
        """Measured end-effector poses (T, A, 4, 4) [m]."""
        return self._poses(layout.EE_POSE)

    @cached_property
    def gripper(self) -> Array:
        """Measured gripper openings (T, A), 0 closed .. 1 open."""
        return self._grippers(layout.GRIPPER)

    @cached_property
    def desired_world_from_ee(self) -> Array | None:
        """Commanded end-effector poses (T, A, 4, 4) [m] for the time of the next frame; None if the file has none."""
        return self._poses(layout.EE_POSE_DESIRED) if self._has(layout.EE_POSE_DESIRED) else None

    @cached_property
    def desired_gripper(self) -> Array | None:
        """Commanded gripper openings (T, A) for the time of the next frame; None if the file has none."""
        return self._grippers(layout.GRIPPER_DESIRED) if self._has(layout.GRIPPER_DESIRED) else None

    @cached_property
    def timestamps(self) -> Array:
        """Times (T,) on the clock of the recording [s], or steps."""
        with self._reading('attributes') as file:
            start_s = float(file.attrs.get(layout.START, 0.0))
        return start_s + self._since_start

    def prompt(self, index: int, wording: int = 0) -> str:
        """Return the instruction at a frame: one of ``facts.prompts``, with the active subtask."""
        return self.facts.prompt(wording, index)

    def view(self, camera: str, index: int) -> CameraFrame:
        """Return the image of a camera at a frame.

        Raises:
            EpisodeError: the camera or frame does not exist, or the image cannot be decoded.
        """
        reader = self.camera(camera)
        if not 0 <= index < len(self):
            raise EpisodeError(f'{self.path} has no frame {index}, expected 0 .. {len(self) - 1}')
        with self._reading(f'{camera}, frame {index}') as file:
            return reader.frame(index, file[camera])

    def storage(self, camera: str) -> ImageStorage:
        """Return the storage of the images of a camera."""
        return self.camera(camera).storage

    def camera(self, name: str) -> CameraReader:
        """Return the reader of one camera.

        Raises:
            EpisodeError: the camera does not exist, or one of its datasets is missing or has a wrong shape.
        """
        readers = self._cameras
        if name not in readers:
            with self._reading(name) as file:
                group = file.get(name)
                if not isinstance(group, h5py.Group):
                    raise EpisodeError(f'{self.path} has no camera {name!r}; it has {", ".join(self.facts.cameras)}')
                readers[name] = CameraReader(group, path=self.path, frames=len(self), since_start_s=self._since_start,
                                             video_root=self.video_root)
        return readers[name]

    def check(self) -> None:
        """Read and check everything but the pixels.

        Raises:
            EpisodeError: a value is invalid; names file, key and frame of the first one.
        """
        frames = len(self)
        for name, array in (('gripper', self.gripper), ('timestamp', self.timestamps),
                            (layout.EE_POSE_DESIRED, self.desired_world_from_ee),
                            (layout.GRIPPER_DESIRED, self.desired_gripper)):
            if array is not None:
                check_shape(np.empty(len(array)), (frames,), f'{self.path}, {name}')
        for name in self.facts.cameras:
            with self._reading(name):
                self.camera(name).check()

    @cached_property
    def _cameras(self) -> dict[str, CameraReader]:
        return {}

    @cached_property
    def _since_start(self) -> Array:
        """Times since the start (T,) [s], as in the file."""
        times = self._array(layout.TIMESTAMP)
        if times.ndim != 1 or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
            bad = int(np.argmax(~(np.diff(times, prepend=-np.inf) > 0))) if times.ndim == 1 else 0
            raise EpisodeError(f'{self.path}, {layout.TIMESTAMP}: expected (T,) finite and increasing, '
                               f'got shape {times.shape}, wrong from frame {bad} on')
        return times

    @property
    def _arm_count(self) -> int:
        return self.world_from_ee.shape[1]

    def _poses(self, key: str) -> Array:
        poses = self._array(key)
        if poses.ndim == 3:
            poses = poses[:, None]
        if poses.ndim != 4 or not len(poses):
            raise EpisodeError(f'{self.path}, {key} has shape {poses.shape}, expected (T, 4, 4) or (T, A, 4, 4)')
        check_poses(poses, poses.shape[:2], f'{self.path}, {key}')
        return poses

    def _grippers(self, key: str) -> Array:
        grippers = self._array(key)
        if grippers.ndim == 1:
            grippers = grippers[:, None]
        check_grippers(grippers, (len(grippers), self._arm_count), f'{self.path}, {key}')
        return grippers

    def _has(self, key: str) -> bool:
        with self._reading(key) as file:
            return key in file

    def _array(self, key: str) -> Array:
        with self._reading(key) as file:
            if key not in file:
                raise EpisodeError(f'{self.path} has no {key!r}; it has {", ".join(file) or "nothing"}')
            return np.asarray(file[key][()], np.float64)

    @contextmanager
    def _reading(self, what: str) -> Iterator[h5py.File]:
        """Open the file, and raise errors of HDF5 as EpisodeError with the file and ``what``."""
        try:
            if self._pid != os.getpid():
                self.__dict__ = self.__getstate__()
            if self._file is None:
                self._file, self._pid = h5py.File(self.path, 'r', rdcc_nbytes=_CHUNK_CACHE), os.getpid()
                self._check_same_file()
            yield self._file
        except EpisodeError:
            raise
        except FileNotFoundError as error:
            raise EpisodeError(f'episode {self.path} does not exist') from error
        except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
            raise EpisodeError(f'{self.path}: cannot read {what}: {error}') from error

    def _check_same_file(self) -> None:
        """Raise EpisodeError if the file was replaced: cached values belong to the old one."""
        found = self.path.stat()
        identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if self._identity not in (None, identity):
            raise EpisodeError(f'{self.path} was replaced while it was read: open it again')
        self._identity = identity


def _prompts(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    texts = [_text(attributes[key]).strip() for key in sorted(attributes) if layout.PROMPT_PREFIX in key]
    return tuple(text for text in texts if text)


def _names(value: Any) -> tuple[str, ...]:
    return () if value is None else tuple(_text(name) for name in np.atleast_1d(value))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _subtasks(file: h5py.File) -> tuple[Subtask, ...]:
    if layout.SUBTASK_DESCRIPTION not in file:
        return ()
    starts, texts = file[layout.SUBTASK_START][()], file[layout.SUBTASK_DESCRIPTION][()]
    return tuple(Subtask(start=int(start), description=_text(text))
                 for start, text in zip(starts, texts, strict=True))


def _rate(since_start_s: Array) -> float:
    """Return the mean rate of times (T,) [Hz]; 1 for a single frame."""
    return 1.0 if len(since_start_s) < 2 else (len(since_start_s) - 1) / float(since_start_s[-1] - since_start_s[0])
