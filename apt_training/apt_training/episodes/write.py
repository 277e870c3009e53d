"""Writer of episode files: atomic, and the same bytes for the same frames.

Frames are checked as they are appended. Images are written at once, everything else at the end.

Letters: T frames, A arms, H, W image.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from apt_policy.core.atomic import PartialFile
from apt_training.episodes import layout
from apt_training.episodes.check import check_facts, check_frame
from apt_training.episodes.disk import reserve_space
from apt_training.episodes.episode import EpisodeError, EpisodeFacts, Frame, ImageStorage
from apt_training.episodes.write_camera import CameraWriter, EmbeddedCameraWriter, VideoCameraWriter


class EpisodeWriter:
    """Writer of one episode; a context manager that creates the file if its block ends without an error."""

    def __init__(self, path: Path, facts: EpisodeFacts, *, storage: ImageStorage = ImageStorage.JPEG,
                 jpeg_quality: int = 95) -> None:
        """Check the facts; an existing file is replaced at the end.

        Args:
            path: episode file.
            facts: facts of the episode.
            storage: storage of the images.
            jpeg_quality: 1 to 100, for JPEG storage.

        Raises:
            EpisodeError: the facts are inconsistent.
        """
        self._path = Path(path)
        check_facts(facts, str(self._path))
        self._facts, self._storage, self._quality = facts, storage, jpeg_quality
        self._partial = PartialFile(self._path)
        self._frames: list[Frame] = []
        self._file: h5py.File | None = None
        self._cameras: list[CameraWriter] = []

    def __enter__(self) -> 'EpisodeWriter':
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._partial.begin()
        self._file = h5py.File(self._partial.path, 'w', libver=('earliest', 'v110'))
        return self

    def append_frame(self, frame: Frame) -> None:
        """Append a frame.

        Raises:
            EpisodeError: shapes, cameras or values are wrong, or the stamp does not increase.
            OSError: the disk is full.
        """
        if self._file is None:
            raise RuntimeError('cannot append a frame: EpisodeWriter is a context manager, use it in a with block')
        check_frame(frame, self._facts, previous=self._frames[-1] if self._frames else None,
                    where=f'{self._path}, frame {len(self._frames)}')
        if not self._frames:
            self._cameras = [self._open_camera(name) for name in self._facts.cameras]
        for camera in self._cameras:
            camera.append_frame(frame.views[camera.name], frame.stamp_s - self._start_s(frame))
        self._frames.append(replace(frame, views={}))

    def update_facts(self, facts: EpisodeFacts) -> None:
        """Replace the facts that are known after the last frame: instructions, subtasks, hash, label source.

        Raises:
            EpisodeError: the facts are inconsistent, or arms, cameras or rate changed.
        """
        check_facts(facts, str(self._path))
        for name in ('arms', 'cameras', 'rate_hz'):
            if getattr(facts, name) != getattr(self._facts, name):
                raise EpisodeError(f'{self._path}: {name} cannot change from {getattr(self._facts, name)} to '
                                   f'{getattr(facts, name)} while an episode is written')
        self._facts = facts

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._close(complete=False)

    def _start_s(self, frame: Frame) -> float:
        return self._frames[0].stamp_s if self._frames else frame.stamp_s

    def _open_camera(self, name: str) -> CameraWriter:
        assert self._file is not None
        group = self._file.create_group(name)
        if self._storage is ImageStorage.VIDEO:
            return VideoCameraWriter(name, group, self._path, self._facts.rate_hz)
        quality = None if self._storage is ImageStorage.RAW else self._quality
        return EmbeddedCameraWriter(name, group, self._path, quality)

    def _finish(self) -> None:
        if not self._frames:
            raise EpisodeError(f'{self._path}: got no frame, expected at least one')
        assert self._file is not None
        for camera in self._cameras:
            camera.finish()
        _write_states(self._file, self._frames)
        _write_facts(self._file, self._facts, self._storage, self._frames[0].stamp_s)
        self._file.flush()
        size = self._file.id.get_filesize()
        self._close(complete=True)
        os.truncate(self._partial.path, size)
        for camera in self._cameras:
            camera.publish()
        self._partial.publish()

    def _close(self, *, complete: bool) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if not complete:
            for camera in self._cameras:
                camera.discard()
            self._partial.discard()


def _write_states(file: h5py.File, frames: Sequence[Frame]) -> None:
    """Write the states of the arms and the times."""
    start_s = frames[0].stamp_s
    states: dict[str, list[Any]] = {
        layout.EE_POSE: [frame.world_from_ee for frame in frames],
        layout.GRIPPER: [frame.gripper for frame in frames],
        layout.EE_POSE_DESIRED: [frame.desired_world_from_ee for frame in frames],
        layout.GRIPPER_DESIRED: [frame.desired_gripper for frame in frames],
        layout.TIMESTAMP: [frame.stamp_s - start_s for frame in frames],
    }
    arrays = {key: np.asarray(rows, np.float64) for key, rows in states.items() if rows[0] is not None}
    reserve_space(file, sum(array.nbytes for array in arrays.values()))
    for key, array in arrays.items():
        file.create_dataset(key, data=array)


def _write_facts(file: h5py.File, facts: EpisodeFacts, storage: ImageStorage, start_s: float) -> None:
    for index, prompt in enumerate(facts.prompts):
        file.attrs[layout.prompt_key(index)] = prompt
    file.attrs[layout.COMPRESS] = storage is ImageStorage.JPEG
    # The published tools decode JPEG files with OpenCV, which returns BGR.
    file.attrs[layout.IS_BGR] = storage is ImageStorage.JPEG
    if facts.ee_indices is not None:
        file.attrs[layout.EE_INDICES] = np.array(facts.ee_indices, np.int64)
    file.attrs[layout.FORMAT_VERSION] = layout.VERSION
    file.attrs[layout.RATE] = facts.rate_hz
    file.attrs[layout.START] = start_s
    _write_names(file, layout.ARMS, facts.arms)
    _write_names(file, layout.CAMERAS, facts.cameras)
    file.attrs[layout.LABEL_SOURCE] = facts.label_source.value
    if facts.contract is not None:
        contract = json.dumps(facts.contract, sort_keys=True)
        file.attrs[layout.CONTRACT] = contract
        file.attrs[layout.CONTRACT_HASH] = hashlib.sha256(contract.encode()).hexdigest()
    file.attrs[layout.SOURCE_HASH] = facts.source_hash
    file.attrs[layout.CONVERTER] = facts.converter_version
    file.attrs[layout.UNITS] = layout.UNITS_TEXT
    file.attrs[layout.FRAMES] = layout.FRAMES_TEXT
    if facts.subtasks:
        starts = np.array([subtask.start for subtask in facts.subtasks], np.int64)
        file.create_dataset(layout.SUBTASK_START, data=starts)
        _write_texts(file, [subtask.description for subtask in facts.subtasks])


def _write_names(file: h5py.File, key: str, names: Sequence[str]) -> None:
    file.attrs.create(key, np.array(names, object), dtype=h5py.string_dtype())


def _write_texts(file: h5py.File, texts: Sequence[str]) -> None:
    file.create_dataset(layout.SUBTASK_DESCRIPTION, data=np.array(texts, object), dtype=h5py.string_dtype())
