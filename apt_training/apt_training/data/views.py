"""From a camera's frame to the square image of a sample; mask and intrinsics follow.

Letters: H, W image, S side of the sample's image.
"""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from apt_policy.core.images import letterbox
from apt_training.data.augment import Crop, crop_box
from apt_training.episodes.episode import CameraFrame


def cropped(view: CameraFrame, crop: Crop) -> CameraFrame:
    """The part of ``view`` that ``crop`` leaves."""
    rows, columns = crop_box(crop, *view.rgb.shape[:2])
    intrinsics = view.intrinsics.copy()
    intrinsics[:2, 2] -= (columns.start, rows.start)
    return replace(view, rgb=view.rgb[rows, columns], mask=None if view.mask is None else view.mask[rows, columns],
                   intrinsics=intrinsics)


def fitted(view: CameraFrame, side: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.float64]]:
    """(S, S, 3) image, (S, S) mask and (3, 3) intrinsics, as the live node makes them.

    An image of that size already is taken as it is.
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
