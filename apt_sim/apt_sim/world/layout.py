"""Where things lie on the table at the start of an episode: drawn from a seed, pure numbers.

The limits come from grasping trials: a cube can be taken from above, with the fingers aligned
to any of its faces, when nothing else is nearer than :data:`CLEARANCE`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.errors import UserError
from apt_sim.world.things import OBJECT_SIDE, TRAY_SIZE

# 7 cm along the fingers' axis or 4.5 cm across it, whichever way the fingers turn.
CLEARANCE = 0.085
"""Between the middles of two cubes [m]; longer objects need half of what they are longer in addition."""
_OBJECTS_LOWER = np.array([-0.30, 0.32])
_OBJECTS_UPPER = np.array([0.30, 0.62])
_TRAYS_Y = 0.78
_TRAYS_REACH_X = 0.22
_JITTER = 0.02
_ATTEMPTS = 2000


class LayoutError(UserError, ValueError):
    """More things than the table has room for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """Poses in the world; the table's top is z = 0."""

    objects: NDArray[np.float64]
    """(N, 3) centres [m]."""
    yaws: NDArray[np.float64]
    """(N,) rotation of each object about z [rad]."""
    trays: NDArray[np.float64]
    """(M, 3) centres of the undersides [m]."""


def draw_layout(*, lengths: Sequence[float], trays: int, random: np.random.Generator) -> Layout:
    """A random layout that respects the spacing.

    Args:
        lengths: of each object, along its own x axis [m].
        trays: how many.

    Raises:
        LayoutError: no room found.
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
    raise LayoutError(f'found room for {len(placed)} of {len(excess)} objects at {CLEARANCE} m from each other; '
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
