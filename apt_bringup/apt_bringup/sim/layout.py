"""Where things lie on the table at the start of an episode: drawn from a seed, pure numbers.

The limits come from grasping trials: a cube can be taken from above, with the fingers aligned
to any of its faces, when nothing else is nearer than :data:`CLEARANCE`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CUBE_SIDE = 0.04
TRAY_SIZE = (0.15, 0.12, 0.03)
# 7 cm along the fingers' axis or 4.5 cm across it, whichever way the fingers turn.
CLEARANCE = 0.085
_CUBES_LOWER = np.array([-0.30, 0.32])
_CUBES_UPPER = np.array([0.30, 0.62])
_TRAYS_Y = 0.78
_TRAYS_REACH_X = 0.22
_JITTER = 0.02
_ATTEMPTS = 2000


class LayoutError(ValueError):
    """More things than the table has room for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """Poses in the world; the table's top is z = 0."""

    cubes: NDArray[np.float64]
    """(N, 3) centres [m]."""
    yaws: NDArray[np.float64]
    """(N,) rotation of each cube about z [rad]."""
    trays: NDArray[np.float64]
    """(M, 3) centres of the undersides [m]."""


def draw_layout(*, cubes: int, trays: int, random: np.random.Generator) -> Layout:
    """A random layout with ``cubes`` cubes and ``trays`` trays that respects the spacing.

    Raises:
        LayoutError: no room found.
    """
    positions = _scatter(cubes, random)
    return Layout(
        cubes=np.column_stack([positions, np.full(cubes, CUBE_SIDE / 2)]),
        yaws=random.uniform(-np.pi / 4, np.pi / 4, cubes),
        trays=_row_of_trays(trays, random))


def _scatter(count: int, random: np.random.Generator) -> NDArray[np.float64]:
    placed = np.empty((0, 2))
    for _ in range(_ATTEMPTS):
        if len(placed) == count:
            return placed
        candidate = random.uniform(_CUBES_LOWER, _CUBES_UPPER)
        if np.all(np.linalg.norm(placed - candidate, axis=1) >= CLEARANCE):
            placed = np.vstack([placed, candidate])
    if len(placed) == count:
        return placed
    raise LayoutError(f'found room for {len(placed)} of {count} cubes at {CLEARANCE} m from each other; '
                      'ask for fewer')


def _row_of_trays(count: int, random: np.random.Generator) -> NDArray[np.float64]:
    room = 2 * _TRAYS_REACH_X / max(count, 1)
    slack = room - TRAY_SIZE[0]
    if count and slack < 0:
        raise LayoutError(f'{count} trays of {TRAY_SIZE[0]} m do not fit in {2 * _TRAYS_REACH_X} m; '
                          'ask for fewer')
    slots = -_TRAYS_REACH_X + room * (np.arange(count) + 0.5)
    x = random.permutation(slots) + random.uniform(-0.5, 0.5, count) * min(2 * _JITTER, slack)
    y = _TRAYS_Y + random.uniform(-_JITTER, _JITTER, count)
    return np.column_stack([x, y, np.zeros(count)])
