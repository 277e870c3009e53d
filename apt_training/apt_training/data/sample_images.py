"""Images of a sample: crop, resize to a square, and colour augmentation; masks and intrinsics follow.

Letters: C cameras, H, W image, S side of the sample's image.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from apt_policy.core.images import letterbox
from apt_training.data.augment import (
    NO_AUGMENTATION,
    Augmentation,
    Crop,
    apply_colour,
    crop_box,
    draw_colour,
    draw_crop,
)
from apt_training.episodes.episode import CameraFrame

Image = tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.float64]]


def sample_images(views: Sequence[CameraFrame], cameras: Sequence[str], *, side: int,
                  wrist_cameras: Collection[str] = (), augmentation: Augmentation = NO_AUGMENTATION,
                  rng: np.random.Generator | None = None) -> Image:
    """Return the images of all cameras at the size of a sample.

    Args:
        views: frames of the cameras.
        cameras: (C,) names of the cameras.
        side: S [px].
        wrist_cameras: cameras that are not cropped.
        augmentation: ranges to draw from.
        rng: random generator of a training sample; None: no augmentation.

    Returns:
        (C, S, S, 3) images, (C, S, S) masks and (C, 3, 3) intrinsics [px].
    """
    changes = augmentation if rng is not None else NO_AUGMENTATION
    crop = draw_crop(changes, rng) if rng is not None and changes.crop else None
    images = []
    for name, view in zip(cameras, views, strict=True):
        if crop is not None and name not in wrist_cameras:
            view = crop_view(view, crop)
        rgb, mask, intrinsics = fit_view(view, side)
        if rng is not None and changes != NO_AUGMENTATION:
            rgb = apply_colour(rgb, draw_colour(changes, rng), mask)
        images.append((rgb, mask, intrinsics))
    rgbs, masks, matrices = zip(*images, strict=True)
    return np.stack(rgbs), np.stack(masks), np.stack(matrices)


def crop_view(view: CameraFrame, crop: Crop) -> CameraFrame:
    """Return the part of ``view`` inside ``crop``."""
    rows, columns = crop_box(crop, *view.rgb.shape[:2])
    intrinsics = view.intrinsics.copy()
    intrinsics[:2, 2] -= (columns.start, rows.start)
    return replace(view, rgb=view.rgb[rows, columns], mask=None if view.mask is None else view.mask[rows, columns],
                   intrinsics=intrinsics)


def fit_view(view: CameraFrame, side: int) -> Image:
    """Resize a frame to a square as the policy node does; a frame of that size is returned unchanged.

    Returns:
        (S, S, 3) image, (S, S) mask and (3, 3) intrinsics [px].
    """
    if view.rgb.shape[:2] == (side, side):
        mask = np.ones((side, side), np.bool_) if view.mask is None else view.mask
        return view.rgb, mask, view.intrinsics
    fit = letterbox(np.ascontiguousarray(view.rgb), view.intrinsics, side)
    if view.mask is None:
        return fit.rgb, fit.mask, fit.intrinsics
    rows, columns = (np.flatnonzero(fit.mask.any(axis)) for axis in (1, 0))
    inner = cv2.resize(view.mask.astype(np.uint8), (len(columns), len(rows)), interpolation=cv2.INTER_NEAREST)
    mask = fit.mask.copy()
    mask[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1] = inner != 0
    return fit.rgb, mask, fit.intrinsics
