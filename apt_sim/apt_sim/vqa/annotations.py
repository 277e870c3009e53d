"""Annotations of a static scene: numbers that questions and answers are made of.

Positions on the table are cells of 2 cm, counted from its left front corner; positions in an image are eighths of its
sides. Independent of language and simulator.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.projection import camera_from_points, project

CELL_SIZE = 0.02
"""Side of a cell of the table's grid [m]."""
GRID_ORIGIN = (-0.36, 0.28)
"""Left front corner of the table's grid in the world [m]."""
GRID_SHAPE = (36, 30)
"""Number of cells along x and y of the world."""
IMAGE_GRID = 8
"""Number of cells along each side of an image."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CameraView:
    """Camera model of one square image."""

    size: int
    """Side of the image [px]."""
    intrinsics: NDArray[np.float64]
    """(3, 3) [px], pixel centres at +0.5."""
    world_from_camera: NDArray[np.float64]
    """(4, 4), optical frame."""


@dataclass(frozen=True, kw_only=True)
class SceneAnnotations:
    """Annotations of a static scene."""

    objects: Mapping[str, tuple[int, int]]
    """Cell on the table of each object, by name."""
    trays: Mapping[str, tuple[int, int]]
    """Cell on the table of each tray, by colour."""
    held: Mapping[str, str]
    """Object in the hand of each arm, by arm."""
    nearer_arm: Mapping[str, str]
    """Arm nearer to each object, by object."""
    image_cells: Mapping[str, Mapping[str, tuple[int, int]]]
    """Column and row of the visible objects in each image, by camera and object."""
    image_points: Mapping[str, Mapping[str, tuple[tuple[float, float], ...]]]
    """Points of the visible objects and trays in each image, across and down as shares of its side, by camera."""
    camera_positions: Mapping[str, Mapping[str, tuple[float, float, float]]]
    """Centres of those objects and trays in the camera's optical frame [m], by camera."""


def table_cell(point: NDArray[np.float64]) -> tuple[int, int]:
    """Return the cell of a point (3,) of the world; points beside the grid belong to the nearest cell."""
    steps = np.floor((point[:2] - GRID_ORIGIN) / CELL_SIZE).astype(int)
    x, y = np.clip(steps, 0, np.array(GRID_SHAPE) - 1)
    return int(x), int(y)


def camera_from_point(point: NDArray[np.float64], view: CameraView) -> NDArray[np.float64]:
    """Transform a point (3,) of the world to the optical frame of a camera [m]."""
    return camera_from_points(point, view.world_from_camera)


def image_position(point: NDArray[np.float64], view: CameraView) -> tuple[float, float] | None:
    """Project a point of the world into an image; occlusion is ignored.

    Args:
        point: (3,) in the world [m].
        view: camera model of the image.

    Returns:
        Position across and down as shares of the image's side; None outside the image.
    """
    across, down = project(point, view.intrinsics, view.world_from_camera) / view.size
    return (float(across), float(down)) if 0 <= across < 1 and 0 <= down < 1 else None


def image_cell(point: tuple[float, float]) -> tuple[int, int]:
    """Return column and row of a position in an image, given as shares of its side."""
    return int(point[0] * IMAGE_GRID), int(point[1] * IMAGE_GRID)
