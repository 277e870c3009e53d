"""Pinhole projection of world points into a camera image."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apt_policy.core.geometry import invert_pose

Array = NDArray[np.float64]


def camera_from_points(points: ArrayLike, world_from_camera: ArrayLike) -> Array:
    """Express world points (..., 3) [m] in the optical frame (x right, y down, z forward) of a camera at (4, 4)."""
    camera_from_world = invert_pose(world_from_camera)
    return np.asarray(points, np.float64) @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]


def project(points: ArrayLike, intrinsics: ArrayLike, world_from_camera: ArrayLike) -> Array:
    """Project world points into an image; points may lie outside of it.

    Args:
        points: (..., 3) points in the world [m].
        intrinsics: (3, 3) camera matrix [px].
        world_from_camera: (4, 4) pose of the optical frame: x right, y down, z forward.

    Returns:
        (..., 2) pixel coordinates, NaN for points behind the camera.
    """
    in_camera = camera_from_points(points, world_from_camera)
    depth = in_camera[..., 2:]
    with np.errstate(divide='ignore', invalid='ignore'):
        pixels = (in_camera / depth) @ np.asarray(intrinsics, np.float64).T
    return np.where(depth > 0, pixels[..., :2], np.nan)
