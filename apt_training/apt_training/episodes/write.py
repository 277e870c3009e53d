"""Writing an episode file: whole or not at all, and the same bytes for the same frames.

Frames are checked as they come. Images go to disk as they come, everything else at the
end. What the keys mean stands in ``layout``.

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
from apt_training.episodes.disk import reserve
from apt_training.episodes.episode import EpisodeError, EpisodeFacts, Frame, Storage
from apt_training.episodes.write_camera import CameraWriter, StoredCamera, VideoCamera


class EpisodeWriter:
    """A context manager: the file appears at ``path`` when the block ends without an error, else nothing does."""

    def __init__(self, path: Path, facts: EpisodeFacts, *, storage: Storage = Storage.JPEG,
                 jpeg_quality: int = 95) -> None:
        """Prepare to write; folders are made, an existing file is replaced at the end.

        Raises:
            EpisodeError: facts that contradict themselves.
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

    def add(self, frame: Frame) -> None:
        """Append one frame.

        Raises:
            EpisodeError: shapes, cameras or values that do not fit, stamps that do not increase.
            OSError: the disk is full.
        """
        if self._file is None:
            raise RuntimeError('EpisodeWriter is a context manager: use it in a with block')
        check_frame(frame, self._facts, previous=self._frames[-1] if self._frames else None,
                    where=f'{self._path}, frame {len(self._frames)}')
        if not self._frames:
            self._cameras = [self._open_camera(name) for name in self._facts.cameras]
        for camera in self._cameras:
            camera.add(frame.views[camera.name], frame.stamp_s - self._start_s(frame))
        self._frames.append(replace(frame, views={}))

    def restate(self, facts: EpisodeFacts) -> None:
        """Replace what is known only when all frames have come: instructions, subtasks, hash, label source.

        Raises:
            EpisodeError: facts that contradict themselves, or other arms, cameras or another rate than before.
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
        if self._storage is Storage.VIDEO:
            return VideoCamera(name, group, self._path, self._facts.rate_hz)
        return StoredCamera(name, group, self._path, None if self._storage is Storage.RAW else self._quality)

    def _finish(self) -> None:
        if not self._frames:
            raise EpisodeError(f'{self._path}: an episode needs at least one frame, got none')
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
                camera.abandon()
            self._partial.discard()


def _write_states(file: h5py.File, frames: Sequence[Frame]) -> None:
    """What the arms did."""
    start_s = frames[0].stamp_s
    states: dict[str, list[Any]] = {
        layout.EE_POSE: [frame.world_from_ee for frame in frames],
        layout.GRIPPER: [frame.gripper for frame in frames],
        layout.EE_POSE_DESIRED: [frame.desired_world_from_ee for frame in frames],
        layout.GRIPPER_DESIRED: [frame.desired_gripper for frame in frames],
        layout.TIMESTAMP: [frame.stamp_s - start_s for frame in frames],
    }
    arrays = {key: np.asarray(rows, np.float64) for key, rows in states.items() if rows[0] is not None}
    reserve(file, sum(array.nbytes for array in arrays.values()))
    for key, array in arrays.items():
        file.create_dataset(key, data=array)


def _write_facts(file: h5py.File, facts: EpisodeFacts, storage: Storage, start_s: float) -> None:
    for index, prompt in enumerate(facts.prompts):
        file.attrs[layout.prompt_key(index)] = prompt
    file.attrs[layout.COMPRESS] = storage is Storage.JPEG
    # An ordinary JPEG file, given to OpenCV as the published tools do, comes out blue first.
    file.attrs[layout.IS_BGR] = storage is Storage.JPEG
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
        file.create_dataset(layout.SUBTASK_START, data=np.array([part.start for part in facts.subtasks], np.int64))
        _write_texts(file, [part.description for part in facts.subtasks])


def _write_names(file: h5py.File, key: str, names: Sequence[str]) -> None:
    file.attrs.create(key, np.array(names, object), dtype=h5py.string_dtype())


def _write_texts(file: h5py.File, texts: Sequence[str]) -> None:
    file.create_dataset(layout.SUBTASK_DESCRIPTION, data=np.array(texts, object), dtype=h5py.string_dtype())
