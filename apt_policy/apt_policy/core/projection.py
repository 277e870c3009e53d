"""Pinhole projection of world points into a camera; knows neither ROS nor MuJoCo."""

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.geometry import invert_pose


def project(points: NDArray[np.float64], intrinsics: NDArray[np.float64],
            world_from_camera: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixels of world points.

    Args:
        points: (N, 3) in the world [m].
        intrinsics: (3, 3) [px].
        world_from_camera: (4, 4), optical frame: x right, y down, z forward.

    Returns:
        (N, 2) pixel coordinates, NaN for points behind the camera.
    """
    camera_from_world = invert_pose(world_from_camera)
    in_camera = points @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    depth = in_camera[:, 2:]
    with np.errstate(divide='ignore', invalid='ignore'):
        pixels = (in_camera / depth) @ intrinsics.T
    return np.where(depth > 0, pixels[:, :2], np.nan)
