"""Writers of the images of one camera to an episode file.

Pixels are written as they are appended; masks, intrinsics and poses follow at the end.

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
from apt_training.episodes.disk import reserve_space
from apt_training.episodes.episode import CameraFrame, EpisodeError
from apt_training.episodes.video import CameraVideoWriter, VideoError

_BATCH = 16
"""Number of images written at once."""


class CameraWriter(ABC):
    """Writer of one camera, independent of the storage of its images."""

    def __init__(self, name: str, group: h5py.Group, path: Path) -> None:
        self.name, self.group, self.path = name, group, path
        self._mask: h5py.Dataset | None = None
        self._packed: tuple[NDArray[np.bool_], bytes] | None = None
        self._same_mask = True
        self._shape: tuple[int, ...] | None = None
        self._intrinsics: list[NDArray[np.float64]] = []
        self._poses: list[NDArray[np.float64]] = []

    def append_frame(self, view: CameraFrame, since_start_s: float) -> None:
        """Append an image with mask, intrinsics and pose.

        Args:
            view: the image.
            since_start_s: time since the first frame [s].

        Raises:
            EpisodeError: the size changed, or only some frames have a mask.
        """
        if self._shape is None:
            self._shape = view.rgb.shape
        if (view.rgb.shape, view.mask is None) != (self._shape, self._mask is None) and self._poses:
            raise EpisodeError(f'{self.path}, camera {self.name}, frame {len(self._poses)}: image {view.rgb.shape} '
                               f'with mask {view.mask is not None}, expected {self._shape} with mask '
                               f'{self._mask is not None} as in the first frame')
        self.append_image(view.rgb, since_start_s)
        self._intrinsics.append(view.intrinsics)
        self._poses.append(view.world_from_camera)
        if view.mask is not None:
            self._write_mask(view.mask)

    @abstractmethod
    def append_image(self, rgb: NDArray[np.uint8], since_start_s: float) -> None:
        """Append an image (H, W, 3) uint8 RGB at a time since the first frame [s]."""

    def finish(self) -> None:
        """Write intrinsics and poses."""
        intrinsics = np.stack(self._intrinsics).astype(np.float64)
        intrinsics[:, :2, 2] -= layout.PIXEL_CENTRE
        constant = bool((intrinsics == intrinsics[0]).all())
        poses = np.stack(self._poses).astype(np.float64)
        reserve_space(self.group.file, intrinsics.nbytes + poses.nbytes)
        self.group.create_dataset(layout.INTRINSICS, data=intrinsics[0] if constant else intrinsics)
        self.group.create_dataset(layout.CAMERA_POSE, data=poses)
        if self._mask is not None:
            self._mask.attrs[layout.MASK_IS_CONSTANT] = self._same_mask

    @abstractmethod
    def publish(self) -> None:
        """Move separate files to their final names."""

    @abstractmethod
    def discard(self) -> None:
        """Remove separate files that were not published."""

    def _write_mask(self, mask: NDArray[np.bool_]) -> None:
        if self._mask is None:
            self._mask = self.group.create_dataset(
                layout.MASK, shape=(0, *mask.shape), maxshape=(None, *mask.shape), dtype=np.bool_,
                chunks=(1, *mask.shape), compression='gzip', compression_opts=1)
        # Masks rarely change: a row is compressed once, not for each frame.
        if self._packed is None or not np.array_equal(self._packed[0], mask):
            self._same_mask = self._packed is None
            self._packed = (mask.copy(), zlib.compress(np.ascontiguousarray(mask).tobytes(), 1))
        index = len(self._mask)
        self._mask.resize(index + 1, axis=0)
        self._mask.id.write_direct_chunk((index, 0, 0), self._packed[1])


class EmbeddedCameraWriter(CameraWriter):
    """Writer of pixels or JPEG files inside the episode file."""

    def __init__(self, name: str, group: h5py.Group, path: Path, quality: int | None) -> None:
        super().__init__(name, group, path)
        self._quality = quality
        self._rgb: h5py.Dataset | None = None
        self._waiting: list[NDArray[np.uint8]] = []

    def append_image(self, rgb: NDArray[np.uint8], since_start_s: float) -> None:
        """Append an image (H, W, 3) uint8 RGB at a time since the first frame [s]."""
        self._waiting.append(rgb.transpose(2, 0, 1).copy() if self._quality is None
                             else encode_jpeg(rgb, self._quality))
        if len(self._waiting) == _BATCH:
            self._flush()

    def finish(self) -> None:
        """Write the last images, intrinsics and poses."""
        self._flush()
        super().finish()

    def publish(self) -> None:
        """Do nothing: there are no separate files."""

    def discard(self) -> None:
        """Do nothing: there are no separate files."""

    def _flush(self) -> None:
        rows, self._waiting = self._waiting, []
        if not rows:
            return
        reserve_space(self.group.file, sum(row.nbytes for row in rows))
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


class VideoCameraWriter(CameraWriter):
    """Writer of a video beside the episode file, which has its name."""

    def __init__(self, name: str, group: h5py.Group, path: Path, rate_hz: float) -> None:
        super().__init__(name, group, path)
        self._rate_hz = rate_hz
        self._target = path.with_name(f'{path.stem}.{name}.mp4')
        self._partial = PartialFile(self._target)
        self._video: CameraVideoWriter | None = None
        self._partial.begin()

    def append_image(self, rgb: NDArray[np.uint8], since_start_s: float) -> None:
        """Append an image (H, W, 3) uint8 RGB at a time since the first frame [s]."""
        try:
            if self._video is None:
                self._video = CameraVideoWriter(self._partial.path, rate_hz=self._rate_hz, height=rgb.shape[0],
                                          width=rgb.shape[1])
        except VideoError as error:
            raise EpisodeError(f'{self.path}, camera {self.name}: {error}') from error
        self._video.append_frame(rgb, since_start_s)

    def finish(self) -> None:
        """Finish the video, and write intrinsics and poses."""
        assert self._video is not None
        video, self._video = self._video, None
        video.close()
        self.group.create_dataset(layout.RGB, data=np.array([self._target.name], object),
                                  dtype=h5py.string_dtype())
        super().finish()

    def publish(self) -> None:
        """Move the video to its final name."""
        self._partial.publish()

    def discard(self) -> None:
        """Remove the video unless it was published."""
        if self._video is not None:
            self._video.discard()
            self._video = None
        self._partial.discard()
