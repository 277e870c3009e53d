"""Past and future states of the arms around a frame.

States are interpolated at the episode's timestamps, so a gap in the recording remains a gap. Before the episode the
first state is repeated, after it the last one.

Letters: T frames, K queries, A arms.
"""

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.actions import pack_state
from apt_policy.core.geometry import interpolate_pose

Array = NDArray[np.float64]

_ON_A_FRAME = 1e-3
"""Share of the interval between two frames within which a query counts as being on a frame."""


def past_states(times: Array, world_from_ee: Array, gripper: Array, *, frame: int, step: float,
                count: int) -> Array:
    """Return the states up to ``frame``, oldest first, ``step`` apart.

    Args:
        times: (T,) times of the frames, increasing.
        world_from_ee: (T, A, 4, 4) poses.
        gripper: (T, A) openings.
        frame: present frame.
        step: time between two states, in the unit of ``times``.
        count: number of states including the present one.

    Returns:
        (count, A, 17) states.
    """
    queries = times[frame] + step * np.arange(1 - count, 1)
    return pack_state(poses_at(times, world_from_ee, queries), grippers_at(times, gripper, queries))


def future_states(times: Array, world_from_ee: tuple[Array, Array | None], gripper: tuple[Array, Array | None], *,
                  frame: int, step: float, count: int) -> Array:
    """Return the future states, ``step`` apart: commanded ones where they exist, else measured ones.

    A command shows in the state one step later, so commands are read at the steps 0 .. count-1 and measurements at
    1 .. count.

    Args:
        times: (T,) times of the frames.
        world_from_ee: (T, A, 4, 4) measured poses, and commanded ones or None.
        gripper: (T, A) measured openings, and commanded ones or None.
        frame: present frame.
        step: time between two states, in the unit of ``times``.
        count: number of states, the horizon.

    Returns:
        (count, A, 17) states.
    """
    commanded = times[frame] + step * np.arange(count)
    measured = commanded + step
    poses = (poses_at(times, world_from_ee[0], measured) if world_from_ee[1] is None
             else poses_at(times, world_from_ee[1], commanded))
    openings = (grippers_at(times, gripper[0], measured) if gripper[1] is None
                else grippers_at(times, gripper[1], commanded))
    return pack_state(poses, openings)


def poses_at(times: Array, poses: Array, queries: Array) -> Array:
    """Interpolate poses (T, A, 4, 4) at (K,) times, translations linearly and rotations on SO(3).

    Returns:
        (K, A, 4, 4) poses.
    """
    before, after, share = _bracket(times, queries)
    found = poses[before].copy()
    between = np.flatnonzero(share)
    if len(between):
        found[between] = interpolate_pose(poses[before[between]], poses[after[between]], np.broadcast_to(
            share[between, None], (len(between), poses.shape[1])))
    return found


def grippers_at(times: Array, openings: Array, queries: Array) -> Array:
    """Interpolate openings (T, A) at (K,) times linearly.

    Returns:
        (K, A) openings.
    """
    before, after, share = _bracket(times, queries)
    # On a frame the result equals the frame's value to the bit.
    blend = openings[before] * (1 - share[:, None]) + openings[after] * share[:, None]
    return np.where(share[:, None] == 0, openings[before], blend)


def _bracket(times: Array, queries: Array) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Return (K,) the frame before, the frame after, and the share of the interval; 0 on a frame."""
    queries = np.clip(queries, times[0], times[-1])
    after = np.clip(np.searchsorted(times, queries), 1, max(len(times) - 1, 1))
    after = np.minimum(after, len(times) - 1)
    before = np.maximum(after - 1, 0)
    span = np.where(after > before, times[after] - times[before], 1.0)
    share = (queries - times[before]) / span
    before = np.where(share > 1 - _ON_A_FRAME, after, before)
    share = np.where((share < _ON_A_FRAME) | (share > 1 - _ON_A_FRAME), 0.0, share)
    return before, after, share
