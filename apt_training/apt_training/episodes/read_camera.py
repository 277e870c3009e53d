"""The streams of one camera in an open episode file: pixels, mask, intrinsics, pose.

Knows the three ways in which images are kept, and nothing of arms or of facts.

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
from apt_training.episodes.episode import CameraFrame, EpisodeError, Storage
from apt_training.episodes.video import VideoError, read_video_frame

log = logging.getLogger(__name__)


class CameraReader:
    """Of one group. Small things are read at once; pixels are asked of the group that :meth:`frame` is given."""

    def __init__(self, group: h5py.Group, *, path: Path, frames: int, since_start_s: NDArray[np.float64],
                 video_root: Path) -> None:
        """Read everything but the pixels.

        Raises:
            EpisodeError: its images are missing or kept in no known way, or a stream has the wrong shape.
        """
        self._frames, self._times = frames, since_start_s
        self._where = f'{path}, {group.name.lstrip("/")}'
        self._swapped = bool(group.file.attrs.get(layout.IS_BGR, False))
        if layout.RGB not in group:
            raise EpisodeError(f'{self._where} has no {layout.RGB!r}; it has {", ".join(group) or "nothing"}')
        rgb: h5py.Dataset = group[layout.RGB]
        self.storage = _storage_of(rgb, frames, f'{self._where}/{layout.RGB}')
        self.video_path = video_root / _name_in(rgb) if self.storage is Storage.VIDEO else None
        """Of a camera whose images are a video."""
        self.intrinsics = self._read_intrinsics(group)
        """(T, 3, 3), or (1, 3, 3) for all frames [px], pixel centres at +0.5."""
        self.world_from_camera = self._read_poses(group)
        """(T, 4, 4); a file that does not say gives the identity, with a warning."""
        self._masked = layout.MASK in group
        self._constant_mask = self._read_constant_mask(group) if self._masked else None

    @property
    def nbytes(self) -> int:
        """Of what is kept."""
        constant = 0 if self._constant_mask is None else self._constant_mask.nbytes
        return self.intrinsics.nbytes + self.world_from_camera.nbytes + constant

    def frame(self, index: int, group: h5py.Group) -> CameraFrame:
        """Frame ``index``, which is in range, from the camera's group in the open file.

        Raises:
            EpisodeError: its image cannot be decoded, or its mask has another size.
        """
        try:
            rgb = self._pixels(index, group)
        except (ImageError, VideoError) as error:
            raise EpisodeError(f'{self._where}/{layout.RGB}, frame {index}: {error}') from error
        mask = self._constant_mask
        if self._masked and mask is None:
            mask = np.asarray(group[layout.MASK][index]) != 0
        if mask is not None and mask.shape != rgb.shape[:2]:
            raise EpisodeError(f'{self._where}/{layout.MASK}, frame {index} is {mask.shape}, '
                               f'its image {rgb.shape[:2]}')
        return CameraFrame(rgb=rgb, mask=mask, intrinsics=self.intrinsics[min(index, len(self.intrinsics) - 1)],
                           world_from_camera=self.world_from_camera[index])

    def check(self) -> None:
        """What reading leaves open; :class:`EpisodeError` names what is wrong first."""
        if self.video_path is not None and not self.video_path.exists():
            raise EpisodeError(f'{self._where}/{layout.RGB}: video {self.video_path} does not exist; '
                               'is video_root right?')

    def _read_poses(self, group: h5py.Group) -> NDArray[np.float64]:
        if layout.CAMERA_POSE not in group:
            log.warning('%s has no %s: the camera is taken to stand in the origin; actions in its frame '
                        'are then actions in the world', self._where, layout.CAMERA_POSE)
            return np.tile(np.eye(4), (self._frames, 1, 1))
        poses = np.asarray(group[layout.CAMERA_POSE][()], np.float64)
        if poses.shape == (4, 4):
            poses = np.tile(poses, (self._frames, 1, 1))
        check_poses(poses, (self._frames,), f'{self._where}/{layout.CAMERA_POSE}')
        return poses

    def _read_intrinsics(self, group: h5py.Group) -> NDArray[np.float64]:
        if layout.INTRINSICS not in group:
            raise EpisodeError(f'{self._where} has no {layout.INTRINSICS!r}; it has {", ".join(group)}: '
                               'write the (3, 3) pinhole matrix of the camera')
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
        """(H, W) that every frame shares; None where each has its own."""
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
        if self.storage is Storage.JPEG:
            # The published tools encode red first as if it were blue first, unless they say is_bgr.
            return decode_jpeg(stored, swapped=not self._swapped)
        pixels = stored.transpose(1, 2, 0)
        return np.ascontiguousarray(pixels[..., ::-1] if self._swapped else pixels)


def _name_in(rgb: h5py.Dataset) -> str:
    name = rgb[()] if rgb.shape == () else rgb[0]
    return name.decode() if isinstance(name, bytes) else str(name)


def _storage_of(rgb: Any, frames: int, where: str) -> Storage:
    if h5py.check_string_dtype(rgb.dtype) is not None and rgb.shape in ((), (1,)):
        return Storage.VIDEO
    if h5py.check_vlen_dtype(rgb.dtype) == np.uint8 and rgb.shape == (frames,):
        return Storage.JPEG
    if rgb.dtype == np.uint8 and rgb.ndim == 4 and rgb.shape[:2] == (frames, 3):
        return Storage.RAW
    raise EpisodeError(f'{where} is {rgb.shape} {rgb.dtype}; expected uint8 ({frames}, 3, H, W), {frames} times '
                       'the bytes of a JPEG file, or one string with the path of a video')
