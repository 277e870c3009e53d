"""What is to be seen in a still scene, in numbers that words can be made of.

Places on the table are counted in steps of 2 cm from its left front corner, places in a picture in eighths of
its sides. No words here, and no simulator.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.projection import camera_from_points, project

STEP = 0.02
"""Of places on the table [m]."""
ORIGIN = (-0.36, 0.28)
"""Where counting begins, in the world [m]."""
STEPS = (36, 30)
"""Along x and y of the world."""
PARTS = 8
"""Of a picture's side."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """How one camera took its picture."""

    size: int
    """Side of the square [px]."""
    intrinsics: NDArray[np.float64]
    """(3, 3) [px], pixel centres at +0.5."""
    world_from_camera: NDArray[np.float64]
    """(4, 4), optical frame."""


@dataclass(frozen=True, kw_only=True)
class Sight:
    """A still scene."""

    objects: Mapping[str, tuple[int, int]]
    """Place on the table by name."""
    trays: Mapping[str, tuple[int, int]]
    """Likewise by colour."""
    held: Mapping[str, str]
    """Object by the arm that holds it."""
    nearer: Mapping[str, str]
    """By object, the arm that is nearer to it."""
    pictured: Mapping[str, Mapping[str, tuple[int, int]]]
    """By camera, the objects in its picture and where in it, column and row."""
    marked: Mapping[str, Mapping[str, tuple[tuple[float, float], ...]]]
    """By camera, points of all things in its picture: across and down, as shares of its side."""
    placed: Mapping[str, Mapping[str, tuple[float, float, float]]]
    """By camera, the middles of those things in its optical frame [m]."""


def place(point: NDArray[np.float64]) -> tuple[int, int]:
    """Of a point (3,) of the world; what lies beside the table counts to its nearest place."""
    steps = np.floor((point[:2] - ORIGIN) / STEP).astype(int)
    x, y = np.clip(steps, 0, np.array(STEPS) - 1)
    return int(x), int(y)


def seen_from(point: NDArray[np.float64], picture: Picture) -> NDArray[np.float64]:
    """A point (3,) of the world in the optical frame of a picture's camera [m]."""
    return camera_from_points(point, picture.world_from_camera)


def point_in(point: NDArray[np.float64], picture: Picture) -> tuple[float, float] | None:
    """Where in a picture a point (3,) of the world is, across and down as shares of its side; None outside of it.

    What stands before the point is not asked for.
    """
    across, down = project(point, picture.intrinsics, picture.world_from_camera) / picture.size
    return (float(across), float(down)) if 0 <= across < 1 and 0 <= down < 1 else None


def part(point: tuple[float, float]) -> tuple[int, int]:
    """Column and row of a point of a picture."""
    return int(point[0] * PARTS), int(point[1] * PARTS)
