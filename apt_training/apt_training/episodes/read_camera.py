"""Reader of one camera in an episode file: images in any storage, masks, intrinsics and poses.

Letters: T frames, H, W image.
"""

import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from apt_training.episodes import layout
from apt_training.episodes.check import check_intrinsics, check_poses
from apt_training.episodes.codec import ImageError, decode_jpeg
from apt_training.episodes.episode import CameraFrame, EpisodeError, ImageStorage
from apt_training.episodes.video import VideoError, read_video_frame

log = logging.getLogger(__name__)


class CameraReader:
    """Reader of the group of one camera. Pixels are read from the group that is passed to :meth:`frame`."""

    def __init__(self, group: h5py.Group, *, path: Path, frames: int, since_start_s: NDArray[np.float64],
                 video_root: Path) -> None:
        """Read everything but the pixels.

        Raises:
            EpisodeError: the images are missing or have an unknown storage, or a dataset has a wrong shape.
        """
        self._frames, self._times = frames, since_start_s
        self._where = f'{path}, {group.name.lstrip("/")}'
        self._swapped = bool(group.file.attrs.get(layout.IS_BGR, False))
        if layout.RGB not in group:
            raise EpisodeError(f'{self._where} has no {layout.RGB!r}; it has {", ".join(group) or "nothing"}')
        rgb: h5py.Dataset = group[layout.RGB]
        self.storage = _storage_of(rgb, frames, f'{self._where}/{layout.RGB}')
        self.video_path = video_root / _name_in(rgb) if self.storage is ImageStorage.VIDEO else None
        """Video file; None for another storage."""
        self.intrinsics = self._read_intrinsics(group)
        """Intrinsics (T, 3, 3), or (1, 3, 3) for all frames [px], pixel centres at +0.5."""
        self.world_from_camera = self._read_poses(group)
        """Camera poses (T, 4, 4) [m]; the identity, with a warning, if the file has none."""
        self._masked = layout.MASK in group
        self._constant_mask = self._read_constant_mask(group) if self._masked else None

    @property
    def nbytes(self) -> int:
        """Size of the cached values [B]."""
        constant = 0 if self._constant_mask is None else self._constant_mask.nbytes
        return self.intrinsics.nbytes + self.world_from_camera.nbytes + constant

    def frame(self, index: int, group: h5py.Group) -> CameraFrame:
        """Return the image at a frame.

        Args:
            index: index of the frame, in range.
            group: group of the camera in the open file.

        Raises:
            EpisodeError: the image cannot be decoded, or its mask has another size.
        """
        try:
            rgb = self._pixels(index, group)
        except (ImageError, VideoError) as error:
            raise EpisodeError(f'{self._where}/{layout.RGB}, frame {index}: {error}') from error
        mask = self._constant_mask
        if self._masked and mask is None:
            mask = np.asarray(group[layout.MASK][index]) != 0
        if mask is not None and mask.shape != rgb.shape[:2]:
            raise EpisodeError(f'{self._where}/{layout.MASK}, frame {index} has shape {mask.shape}, '
                               f'expected {rgb.shape[:2]} of its image')
        return CameraFrame(rgb=rgb, mask=mask, intrinsics=self.intrinsics[min(index, len(self.intrinsics) - 1)],
                           world_from_camera=self.world_from_camera[index])

    def check(self) -> None:
        """Check that the video exists.

        Raises:
            EpisodeError: it does not.
        """
        if self.video_path is not None and not self.video_path.exists():
            raise EpisodeError(f'{self._where}/{layout.RGB}: video {self.video_path} does not exist: '
                               'copy it, or correct video_root')

    def _read_poses(self, group: h5py.Group) -> NDArray[np.float64]:
        if layout.CAMERA_POSE not in group:
            log.warning('%s has no %s: its pose is assumed to be the identity, so actions in its frame are '
                        'actions in the world frame', self._where, layout.CAMERA_POSE)
            return np.tile(np.eye(4), (self._frames, 1, 1))
        poses = np.asarray(group[layout.CAMERA_POSE][()], np.float64)
        if poses.shape == (4, 4):
            poses = np.tile(poses, (self._frames, 1, 1))
        check_poses(poses, (self._frames,), f'{self._where}/{layout.CAMERA_POSE}')
        return poses

    def _read_intrinsics(self, group: h5py.Group) -> NDArray[np.float64]:
        if layout.INTRINSICS not in group:
            raise EpisodeError(f'{self._where} has no {layout.INTRINSICS!r}; it has {", ".join(group)}: '
                               'add the pinhole matrix (3, 3) of the camera')
        stored = np.asarray(group[layout.INTRINSICS][()], np.float64)
        matrices = stored.reshape(-1, 3, 3) if stored.shape[-2:] == (3, 3) else stored[None]
        if len(matrices) not in (1, self._frames):
            raise EpisodeError(f'{self._where}/{layout.INTRINSICS} has shape {stored.shape}, '
                               f'expected (3, 3) or ({self._frames}, 3, 3)')
        for index, matrix in enumerate(matrices):
            check_intrinsics(matrix, f'{self._where}/{layout.INTRINSICS}[{index}]')
        matrices[:, :2, 2] += layout.PIXEL_CENTRE
        return matrices

    def _read_constant_mask(self, group: h5py.Group) -> NDArray[np.bool_] | None:
        """Return the mask (H, W) of all frames; None if each has its own."""
        masks = group[layout.MASK]
        if masks.ndim != 3 or len(masks) != self._frames:
            raise EpisodeError(f'{self._where}/{layout.MASK} has shape {masks.shape}, '
                               f'expected ({self._frames}, H, W)')
        return np.asarray(masks[0]) != 0 if masks.attrs.get(layout.MASK_IS_CONSTANT, False) else None

    def _pixels(self, index: int, group: h5py.Group) -> NDArray[np.uint8]:
        if self.video_path is not None:
            rgb = read_video_frame(self.video_path, float(self._times[index]))
            return np.ascontiguousarray(rgb[..., ::-1]) if self._swapped else rgb
        stored = group[layout.RGB][index]
        if self.storage is ImageStorage.JPEG:
            # The published tools encode RGB as if it were BGR, unless is_bgr is set.
            return decode_jpeg(stored, swapped=not self._swapped)
        pixels = stored.transpose(1, 2, 0)
        return np.ascontiguousarray(pixels[..., ::-1] if self._swapped else pixels)


def _name_in(rgb: h5py.Dataset) -> str:
    name = rgb[()] if rgb.shape == () else rgb[0]
    return name.decode() if isinstance(name, bytes) else str(name)


def _storage_of(rgb: Any, frames: int, where: str) -> ImageStorage:
    if h5py.check_string_dtype(rgb.dtype) is not None and rgb.shape in ((), (1,)):
        return ImageStorage.VIDEO
    if h5py.check_vlen_dtype(rgb.dtype) == np.uint8 and rgb.shape == (frames,):
        return ImageStorage.JPEG
    if rgb.dtype == np.uint8 and rgb.ndim == 4 and rgb.shape[:2] == (frames, 3):
        return ImageStorage.RAW
    raise EpisodeError(f'{where} is {rgb.shape} {rgb.dtype}, expected uint8 ({frames}, 3, H, W), {frames} JPEG '
                       'files as bytes, or one string with the path of a video')
