"""Random layout of objects and trays on the table at the start of an episode.

The limits come from grasp experiments in simulation: a cube can be grasped from above, with the fingers aligned to any
of its faces, if no other object is nearer than :data:`CLEARANCE`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.errors import UserError
from apt_sim.world.objects import OBJECT_SIDE, TRAY_SIZE

# A grasp needs 7 cm along the fingers' axis or 4.5 cm across it, in any orientation of the fingers.
CLEARANCE = 0.085
"""Minimum distance between the centres of two cubes [m]; longer objects add half of their extra length."""
# Area of the objects' centres: x and y in the world [m].
_OBJECTS_LOWER = np.array([-0.30, 0.32])
_OBJECTS_UPPER = np.array([0.30, 0.62])
# Row of the trays behind the objects: y of the row, half of its extent along x, and largest displacement [m].
_TRAYS_Y = 0.78
_TRAYS_REACH_X = 0.22
_JITTER = 0.02
# Candidates of the rejection sampling before the layout counts as impossible.
_ATTEMPTS = 2000


class LayoutError(UserError, ValueError):
    """Layout with more objects or trays than fit on the table."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """Poses of objects and trays in the world; the table's top is z = 0."""

    objects: NDArray[np.float64]
    """(N, 3) centres of the objects [m]."""
    yaws: NDArray[np.float64]
    """(N,) rotation of each object about z [rad]."""
    trays: NDArray[np.float64]
    """(M, 3) centres of the trays' undersides [m]."""


def sample_layout(*, lengths: Sequence[float], trays: int, random: np.random.Generator) -> Layout:
    """Sample a layout that respects the clearance.

    Args:
        lengths: length of each object along its own x axis [m].
        trays: number of trays.
        random: generator that the poses are sampled from.

    Raises:
        LayoutError: the objects or trays do not fit.
    """
    positions = _scatter((np.asarray(lengths, np.float64) - OBJECT_SIDE) / 2, random)
    return Layout(
        objects=np.column_stack([positions, np.full(len(lengths), OBJECT_SIDE / 2)]),
        yaws=random.uniform(-np.pi / 4, np.pi / 4, len(lengths)),
        trays=_row_of_trays(trays, random))


def _scatter(excess: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    placed = np.empty((0, 2))
    for _ in range(_ATTEMPTS):
        count = len(placed)
        if count == len(excess):
            return placed
        candidate = random.uniform(_OBJECTS_LOWER, _OBJECTS_UPPER)
        needed = CLEARANCE + excess[:count] + excess[count]
        if np.all(np.linalg.norm(placed - candidate, axis=1) >= needed):
            placed = np.vstack([placed, candidate])
    if len(placed) == len(excess):
        return placed
    raise LayoutError(f'only {len(placed)} of {len(excess)} objects fit on the table at a clearance of '
                      f'{CLEARANCE} m; use fewer objects')


def _row_of_trays(count: int, random: np.random.Generator) -> NDArray[np.float64]:
    room = 2 * _TRAYS_REACH_X / max(count, 1)
    slack = room - TRAY_SIZE[0]
    if count and slack < 0:
        raise LayoutError(f'{count} trays of {TRAY_SIZE[0]} m do not fit in {2 * _TRAYS_REACH_X} m; '
                          'use fewer trays')
    slots = -_TRAYS_REACH_X + room * (np.arange(count) + 0.5)
    x = random.permutation(slots) + random.uniform(-0.5, 0.5, count) * min(2 * _JITTER, slack)
    y = _TRAYS_Y + random.uniform(-_JITTER, _JITTER, count)
    return np.column_stack([x, y, np.zeros(count)])
