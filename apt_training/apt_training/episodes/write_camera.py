"""The images of one camera on their way into an episode file.

Knows nothing of arms or of facts; ``write`` opens one writer per camera and finishes or
abandons it. Pixels stream to disk, the rest waits in memory.

Letters: T frames, H, W image.
"""

import zlib
from abc import ABC, abstractmethod
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from apt_policy.core.atomic import PartialFile
from apt_training.episodes import layout
from apt_training.episodes.codec import encode_jpeg
from apt_training.episodes.disk import reserve
from apt_training.episodes.episode import CameraFrame, EpisodeError
from apt_training.episodes.video import VideoError, VideoWriter

_BATCH = 16
"""Images written at once."""


class CameraWriter(ABC):
    """What every camera has, whatever becomes of its pixels."""

    def __init__(self, name: str, group: h5py.Group, path: Path) -> None:
        self.name, self.group, self.path = name, group, path
        self._mask: h5py.Dataset | None = None
        self._packed: tuple[NDArray[np.bool_], bytes] | None = None
        self._same_mask = True
        self._shape: tuple[int, ...] | None = None
        self._intrinsics: list[NDArray[np.float64]] = []
        self._poses: list[NDArray[np.float64]] = []

    def add(self, view: CameraFrame, since_start_s: float) -> None:
        """Append one image, its mask and where it was taken from."""
        if self._shape is None:
            self._shape = view.rgb.shape
        if (view.rgb.shape, view.mask is None) != (self._shape, self._mask is None) and self._poses:
            raise EpisodeError(f'{self.path}, camera {self.name}, frame {len(self._poses)}: image {view.rgb.shape} '
                               f'with mask {view.mask is not None}; the episode began with {self._shape} '
                               f'and {self._mask is not None}: an episode keeps one size')
        self.write(view.rgb, since_start_s)
        self._intrinsics.append(view.intrinsics)
        self._poses.append(view.world_from_camera)
        if view.mask is not None:
            self._write_mask(view.mask)

    @abstractmethod
    def write(self, rgb: NDArray[np.uint8], since_start_s: float) -> None:
        """Append one image."""

    def finish(self) -> None:
        """Write what is known at the end only."""
        intrinsics = np.stack(self._intrinsics).astype(np.float64)
        intrinsics[:, :2, 2] -= layout.PIXEL_CENTRE
        constant = bool((intrinsics == intrinsics[0]).all())
        poses = np.stack(self._poses).astype(np.float64)
        reserve(self.group.file, intrinsics.nbytes + poses.nbytes)
        self.group.create_dataset(layout.INTRINSICS, data=intrinsics[0] if constant else intrinsics)
        self.group.create_dataset(layout.CAMERA_POSE, data=poses)
        if self._mask is not None:
            self._mask.attrs[layout.MASK_IS_CONSTANT] = self._same_mask

    @abstractmethod
    def publish(self) -> None:
        """Put files of its own in place."""

    @abstractmethod
    def abandon(self) -> None:
        """Remove files of its own that were not published."""

    def _write_mask(self, mask: NDArray[np.bool_]) -> None:
        if self._mask is None:
            self._mask = self.group.create_dataset(
                layout.MASK, shape=(0, *mask.shape), maxshape=(None, *mask.shape), dtype=np.bool_,
                chunks=(1, *mask.shape), compression='gzip', compression_opts=1)
        # Masks hardly ever change: a row is compressed once, not for each frame.
        if self._packed is None or not np.array_equal(self._packed[0], mask):
            self._same_mask = self._packed is None
            self._packed = (mask.copy(), zlib.compress(np.ascontiguousarray(mask).tobytes(), 1))
        index = len(self._mask)
        self._mask.resize(index + 1, axis=0)
        self._mask.id.write_direct_chunk((index, 0, 0), self._packed[1])


class StoredCamera(CameraWriter):
    """Pixels or JPEG files inside the episode file."""

    def __init__(self, name: str, group: h5py.Group, path: Path, quality: int | None) -> None:
        super().__init__(name, group, path)
        self._quality = quality
        self._rgb: h5py.Dataset | None = None
        self._waiting: list[NDArray[np.uint8]] = []

    def write(self, rgb: NDArray[np.uint8], since_start_s: float) -> None:
        """Append one image."""
        self._waiting.append(rgb.transpose(2, 0, 1).copy() if self._quality is None
                             else encode_jpeg(rgb, self._quality))
        if len(self._waiting) == _BATCH:
            self._flush()

    def finish(self) -> None:
        """Write the rest."""
        self._flush()
        super().finish()

    def publish(self) -> None:
        """Everything is in the episode file."""

    def abandon(self) -> None:
        """Everything is in the episode file."""

    def _flush(self) -> None:
        rows, self._waiting = self._waiting, []
        if not rows:
            return
        reserve(self.group.file, sum(row.nbytes for row in rows))
        if self._rgb is None:
            self._rgb = self._create(rows[0].shape)
        done = len(self._rgb)
        self._rgb.resize(done + len(rows), axis=0)
        if self._quality is None:
            self._rgb[done:] = np.stack(rows)
        else:
            for offset, row in enumerate(rows):
                self._rgb[done + offset] = row

    def _create(self, shape: tuple[int, ...]) -> h5py.Dataset:
        if self._quality is None:
            return self.group.create_dataset(layout.RGB, shape=(0, *shape), maxshape=(None, *shape),
                                             chunks=(1, *shape), dtype=np.uint8)
        return self.group.create_dataset(layout.RGB, shape=(0,), maxshape=(None,), chunks=(256,),
                                         dtype=h5py.vlen_dtype(np.uint8))


class VideoCamera(CameraWriter):
    """A video beside the episode file, which holds its name."""

    def __init__(self, name: str, group: h5py.Group, path: Path, rate_hz: float) -> None:
        super().__init__(name, group, path)
        self._rate_hz = rate_hz
        self._target = path.with_name(f'{path.stem}.{name}.mp4')
        self._partial = PartialFile(self._target)
        self._video: VideoWriter | None = None
        self._partial.begin()

    def write(self, rgb: NDArray[np.uint8], since_start_s: float) -> None:
        """Append one image."""
        try:
            if self._video is None:
                self._video = VideoWriter(self._partial.path, rate_hz=self._rate_hz, height=rgb.shape[0],
                                          width=rgb.shape[1])
        except VideoError as error:
            raise EpisodeError(f'{self.path}, camera {self.name}: {error}') from error
        self._video.add(rgb, since_start_s)

    def finish(self) -> None:
        """End the video."""
        assert self._video is not None
        video, self._video = self._video, None
        video.close()
        self.group.create_dataset(layout.RGB, data=np.array([self._target.name], object),
                                  dtype=h5py.string_dtype())
        super().finish()

    def publish(self) -> None:
        """Put the video in place."""
        self._partial.publish()

    def abandon(self) -> None:
        """Remove the video unless it was published."""
        if self._video is not None:
            self._video.abandon()
            self._video = None
        self._partial.discard()
