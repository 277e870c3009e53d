"""Where the arms are around a frame: the past and the future of a sample.

Time is what the episode says, so a gap in the recording stays one; between two frames poses
are interpolated. In front of the episode its first state stands, behind it its last.

Letters: T frames, K queries, A arms.
"""

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.actions import pack_state
from apt_policy.core.geometry import interpolate_pose

Array = NDArray[np.float64]

_ON_A_FRAME = 1e-3
"""A query this share of the way from one frame to the next counts as that frame."""


def past_states(times: Array, world_from_ee: Array, gripper: Array, *, frame: int, step: float,
                count: int) -> Array:
    """(count, A, 17) states up to ``frame``, oldest first, ``step`` apart.

    Args:
        times: (T,) of the frames, increasing.
        world_from_ee: (T, A, 4, 4).
        gripper: (T, A).
        frame: the present.
        step: between two states, in the unit of ``times``.
        count: states, the present included.
    """
    queries = times[frame] + step * np.arange(1 - count, 1)
    return pack_state(poses_at(times, world_from_ee, queries), grippers_at(times, gripper, queries))


def future_states(times: Array, world_from_ee: tuple[Array, Array | None], gripper: tuple[Array, Array | None], *,
                  frame: int, step: float, count: int) -> Array:
    """(count, A, 17) states to come, ``step`` apart: what was commanded, else what was measured.

    A command given now shows in the state one step later, so commands are read at the steps
    0 .. count-1 and measurements at 1 .. count.

    Args:
        times: (T,) of the frames.
        world_from_ee: (T, A, 4, 4) measured, and commanded or None.
        gripper: (T, A) likewise.
        frame: the present.
        step: between two states, in the unit of ``times``.
        count: the horizon.
    """
    commanded = times[frame] + step * np.arange(count)
    measured = commanded + step
    poses = (poses_at(times, world_from_ee[0], measured) if world_from_ee[1] is None
             else poses_at(times, world_from_ee[1], commanded))
    openings = (grippers_at(times, gripper[0], measured) if gripper[1] is None
                else grippers_at(times, gripper[1], commanded))
    return pack_state(poses, openings)


def poses_at(times: Array, poses: Array, queries: Array) -> Array:
    """(K, A, 4, 4) poses of (T, A, 4, 4) at (K,) times: translation linear, rotation on SO(3)."""
    before, after, share = _bracket(times, queries)
    found = poses[before].copy()
    between = np.flatnonzero(share)
    if len(between):
        found[between] = interpolate_pose(poses[before[between]], poses[after[between]], np.broadcast_to(
            share[between, None], (len(between), poses.shape[1])))
    return found


def grippers_at(times: Array, openings: Array, queries: Array) -> Array:
    """(K, A) openings of (T, A) at (K,) times, linear."""
    before, after, share = _bracket(times, queries)
    # On a frame the value is that of the frame, to the bit.
    blend = openings[before] * (1 - share[:, None]) + openings[after] * share[:, None]
    return np.where(share[:, None] == 0, openings[before], blend)


def _bracket(times: Array, queries: Array) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """(K,) frame before, frame after, and how far between them: 0 on a frame."""
    queries = np.clip(queries, times[0], times[-1])
    after = np.clip(np.searchsorted(times, queries), 1, max(len(times) - 1, 1))
    after = np.minimum(after, len(times) - 1)
    before = np.maximum(after - 1, 0)
    span = np.where(after > before, times[after] - times[before], 1.0)
    share = (queries - times[before]) / span
    before = np.where(share > 1 - _ON_A_FRAME, after, before)
    share = np.where((share < _ON_A_FRAME) | (share > 1 - _ON_A_FRAME), 0.0, share)
    return before, after, share
