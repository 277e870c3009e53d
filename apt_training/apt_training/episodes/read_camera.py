"""The streams of one camera in an open episode file: pixels, mask, intrinsics, pose.

Knows the three ways in which images are kept, and nothing of arms or of facts.

Letters: T frames, H, W image.
"""

import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from apt_training.episodes import layout
from apt_training.episodes.check import check_intrinsics, check_poses
from apt_training.episodes.codec import ImageError, decode_jpeg
from apt_training.episodes.episode import CameraFrame, EpisodeError, Storage
from apt_training.episodes.video import VideoError, read_video_frame

log = logging.getLogger(__name__)


class CameraReader:
    """Of one group; lives as long as its file is open."""

    def __init__(self, group: h5py.Group, *, path: Path, frames: int, since_start_s: NDArray[np.float64],
                 video_root: Path) -> None:
        """Look at the group.

        Raises:
            EpisodeError: its images are missing or kept in no known way.
        """
        self._group, self._frames, self._times = group, frames, since_start_s
        self._where = f'{path}, {group.name.lstrip("/")}'
        self._swapped = bool(group.file.attrs.get(layout.IS_BGR, False))
        self._video_root = video_root
        if layout.RGB not in group:
            raise EpisodeError(f'{self._where} has no {layout.RGB!r}; it has {", ".join(group) or "nothing"}')
        self._rgb: h5py.Dataset = group[layout.RGB]
        self.storage = _storage_of(self._rgb, frames, f'{self._where}/{layout.RGB}')

    def frame(self, index: int) -> CameraFrame:
        """Frame ``index``, which is in range.

        Raises:
            EpisodeError: its image cannot be decoded, or its mask has another size.
        """
        try:
            rgb = self._pixels(index)
        except (ImageError, VideoError) as error:
            raise EpisodeError(f'{self._where}/{layout.RGB}, frame {index}: {error}') from error
        mask = self._mask_at(index)
        if mask is not None and mask.shape != rgb.shape[:2]:
            raise EpisodeError(f'{self._where}/{layout.MASK}, frame {index} is {mask.shape}, '
                               f'its image {rgb.shape[:2]}')
        return CameraFrame(rgb=rgb, mask=mask, intrinsics=self.intrinsics[min(index, len(self.intrinsics) - 1)],
                           world_from_camera=self.world_from_camera[index])

    @cached_property
    def world_from_camera(self) -> NDArray[np.float64]:
        """(T, 4, 4); a file that does not say gives the identity, with a warning."""
        if layout.CAMERA_POSE not in self._group:
            log.warning('%s has no %s: the camera is taken to stand in the origin; actions in its frame '
                        'are then actions in the world', self._where, layout.CAMERA_POSE)
            return np.tile(np.eye(4), (self._frames, 1, 1))
        poses = np.asarray(self._group[layout.CAMERA_POSE][()], np.float64)
        if poses.shape == (4, 4):
            poses = np.tile(poses, (self._frames, 1, 1))
        check_poses(poses, (self._frames,), f'{self._where}/{layout.CAMERA_POSE}')
        return poses

    @cached_property
    def intrinsics(self) -> NDArray[np.float64]:
        """(T, 3, 3), or (1, 3, 3) for all frames [px], pixel centres at +0.5."""
        if layout.INTRINSICS not in self._group:
            raise EpisodeError(f'{self._where} has no {layout.INTRINSICS!r}; it has {", ".join(self._group)}: '
                               'write the (3, 3) pinhole matrix of the camera')
        stored = np.asarray(self._group[layout.INTRINSICS][()], np.float64)
        matrices = stored.reshape(-1, 3, 3) if stored.shape[-2:] == (3, 3) else stored[None]
        if len(matrices) not in (1, self._frames):
            raise EpisodeError(f'{self._where}/{layout.INTRINSICS} has shape {stored.shape}, '
                               f'expected (3, 3) or ({self._frames}, 3, 3)')
        for index, matrix in enumerate(matrices):
            check_intrinsics(matrix, f'{self._where}/{layout.INTRINSICS}[{index}]')
        matrices[:, :2, 2] += layout.PIXEL_CENTRE
        return matrices

    def check(self) -> None:
        """Read everything but the pixels; :class:`EpisodeError` names what is wrong first."""
        self.intrinsics, self.world_from_camera  # noqa: B018
        mask = self._group.get(layout.MASK)
        if mask is not None and (mask.ndim != 3 or len(mask) != self._frames):
            raise EpisodeError(f'{self._where}/{layout.MASK} has shape {mask.shape}, '
                               f'expected ({self._frames}, H, W)')
        if self.storage is Storage.VIDEO and not self.video_path.exists():
            raise EpisodeError(f'{self._where}/{layout.RGB}: video {self.video_path} does not exist; '
                               'is video_root right?')

    @cached_property
    def video_path(self) -> Path:
        """Of a camera whose images are a video."""
        name = self._rgb[()] if self._rgb.shape == () else self._rgb[0]
        return self._video_root / (name.decode() if isinstance(name, bytes) else str(name))

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        # Kept as an attribute, the method would hold its own object: thousands of files a minute are opened and
        # closed, and what they held would wait for Python's rare full collection.
        if self.storage is Storage.JPEG:
            return self._jpeg(index)
        return self._raw(index) if self.storage is Storage.RAW else self._video_frame(index)

    def _raw(self, index: int) -> NDArray[np.uint8]:
        pixels = self._rgb[index].transpose(1, 2, 0)
        return np.ascontiguousarray(pixels[..., ::-1] if self._swapped else pixels)

    def _jpeg(self, index: int) -> NDArray[np.uint8]:
        # The published tools encode red first as if it were blue first, unless they say is_bgr.
        return decode_jpeg(self._rgb[index], swapped=not self._swapped)

    def _video_frame(self, index: int) -> NDArray[np.uint8]:
        rgb = read_video_frame(self.video_path, float(self._times[index]))
        return np.ascontiguousarray(rgb[..., ::-1]) if self._swapped else rgb

    def _mask_at(self, index: int) -> NDArray[np.bool_] | None:
        if self._masks is None:
            return None
        return np.asarray(self._masks[index]) != 0 if self._constant_mask is None else self._constant_mask

    @cached_property
    def _masks(self) -> h5py.Dataset | None:
        return self._group.get(layout.MASK)

    @cached_property
    def _constant_mask(self) -> NDArray[np.bool_] | None:
        """(H, W) that every frame shares, or None."""
        if self._masks is None or not self._masks.attrs.get(layout.MASK_IS_CONSTANT, False):
            return None
        return np.asarray(self._masks[0]) != 0


def _storage_of(rgb: Any, frames: int, where: str) -> Storage:
    if h5py.check_string_dtype(rgb.dtype) is not None and rgb.shape in ((), (1,)):
        return Storage.VIDEO
    if h5py.check_vlen_dtype(rgb.dtype) == np.uint8 and rgb.shape == (frames,):
        return Storage.JPEG
    if rgb.dtype == np.uint8 and rgb.ndim == 4 and rgb.shape[:2] == (frames, 3):
        return Storage.RAW
    raise EpisodeError(f'{where} is {rgb.shape} {rgb.dtype}; expected uint8 ({frames}, 3, H, W), {frames} times '
                       'the bytes of a JPEG file, or one string with the path of a video')
