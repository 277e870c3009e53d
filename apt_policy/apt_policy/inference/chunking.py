"""Execution of action chunks: from chunks to the target of one control tick.

A chunk's step differs from the control period: the executor interpolates the chunk at the control
time, so steps that passed during inference are skipped and never replayed. Every change of the executed
motion (a new chunk, an expired member of the ensemble, a resumption) is blended in from the motion before.
"""

import math
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.sample import Chunk, Hold, HoldReason, Target
from apt_policy.inference.ports import ChunkPrefix, PlannedChunk
from apt_policy.inference.trajectory import Poses, Trajectory, average, blend

OLDEST_WEIGHT = 0.1
"""Weight of the oldest chunk of an ensemble relative to the newest, as in the released code."""
# Knots of the motion that is blended out: one per 20 ms, and a bound for long blends.
_KNOT_NS = 20_000_000
_MAX_KNOTS = 128


class ChunkMode(Enum):
    """Way of combining overlapping chunks into one motion."""

    NEWEST_BLEND = 'newest_blend'
    """Newest chunk, blended in."""
    TEMPORAL_ENSEMBLE = 'temporal_ensemble'
    """Weighted mean of the newest chunks that cover the instant (temporal ensembling of ACT)."""
    REAL_TIME = 'real_time'
    """Newest chunk, planned with the actions executed during its inference as a fixed prefix (real-time chunking)."""


def ensemble_weights(count: int) -> NDArray[np.float64]:
    """Return (count,) weights from :data:`OLDEST_WEIGHT` of the oldest chunk to 1 of the newest."""
    return np.linspace(OLDEST_WEIGHT, 1.0, count) if count > 1 else np.ones(1)


class ChunkExecutor:
    """Executor of the chunks of one epoch; computes the present target. Not thread-safe."""

    def __init__(self, *, mode: ChunkMode = ChunkMode.NEWEST_BLEND, blend_s: float = 0.2,
                 ensemble_size: int = 4) -> None:
        """Create an executor without chunks.

        Args:
            mode: way of combining overlapping chunks.
            blend_s: time over which a change is blended in [s], at least 0.
            ensemble_size: largest number of chunks averaged by ``TEMPORAL_ENSEMBLE``, at least 1.

        Raises:
            ValueError: an argument is out of range.
        """
        if not (blend_s >= 0 and math.isfinite(blend_s)):
            raise ValueError(f'blend_s is {blend_s}; expected a time of at least 0 s')
        if ensemble_size < 1:
            raise ValueError(f'ensemble_size is {ensemble_size}; expected at least 1 chunk')
        self._mode = mode
        self._blend_ns = round(blend_s * 1e9)
        self._keep = ensemble_size if mode is ChunkMode.TEMPORAL_ENSEMBLE else 1
        self._epoch = 0
        self._newest: Chunk | None = None
        self._plans: list[Trajectory] = []
        self._outgoing: Trajectory | None = None
        self._blend_start_ns = 0

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the observation of the newest chunk of this epoch [ns]; None without a chunk."""
        return self._newest.stamp_ns if self._newest is not None else None

    def clear(self, epoch: int) -> None:
        """Drop all chunks; from now on only chunks of ``epoch`` are accepted."""
        self._epoch = epoch
        self._newest = None
        self._plans = []
        self._outgoing = None

    def add_chunk(self, planned: PlannedChunk, *, now_ns: int) -> bool:
        """Add a chunk; return False if it is of another epoch or not newer than the newest."""
        chunk = planned.chunk
        if chunk.epoch != self._epoch:
            return False
        if self._newest is not None and chunk.stamp_ns <= self._newest.stamp_ns:
            return False
        start_ns = now_ns
        prefix = planned.request.prefix
        if self._mode is ChunkMode.REAL_TIME and prefix is not None:
            start_ns = max(now_ns, chunk.stamp_ns + len(prefix.gripper) * chunk.step_ns)
        self._hand_over(now_ns, start_ns)
        self._newest = chunk
        self._plans = [*self._plans, _with_present(planned)][-self._keep:]
        return True

    def blend_from(self, origin: Poses, *, now_ns: int) -> None:
        """Blend in from ``origin`` (N = 1), the poses of the arms after a time without targets."""
        self._outgoing = Trajectory.standing_still(origin)
        self._blend_start_ns = now_ns

    def target(self, now_ns: int) -> Target | Hold:
        """Return the target of all arms at ``now_ns``, or a hold if there is no chunk or it has ended."""
        if self._newest is None:
            return Hold(reason=HoldReason.NO_CHUNK, detail='no chunk has been planned yet')
        late_ns = now_ns - self._plans[-1].end_ns
        if late_ns > 0:
            return Hold(reason=HoldReason.CHUNK_EXPIRED,
                        detail=f'the newest chunk ended {late_ns / 1e9:.2f} s ago')
        if self._plans[0].end_ns < now_ns:
            self._hand_over(now_ns, now_ns)
            self._plans = [plan for plan in self._plans if plan.end_ns >= now_ns]
        poses = self._executed(_instants(now_ns))
        world_from_ee, gripper = poses.to_matrices()
        return Target(due_ns=now_ns, world_from_ee=world_from_ee[0], gripper=gripper[0],
                      valid_arms=poses.valid_arms, epoch=self._epoch)

    def committed_prefix(self, stamp_ns: int, *, delay_ns: int) -> ChunkPrefix | None:
        """Return the actions that will be executed while a chunk is inferred.

        Args:
            stamp_ns: stamp of the observation of the new chunk [ns].
            delay_ns: expected duration of inference [ns].

        Returns:
            The prefix of the new chunk; None unless the mode is ``REAL_TIME`` and the present chunk reaches that far.
        """
        if self._mode is not ChunkMode.REAL_TIME or self._newest is None:
            return None
        step_ns = self._newest.step_ns
        reach = (self._plans[-1].end_ns - stamp_ns) // step_ns
        count = min(-(-delay_ns // step_ns), reach, len(self._newest.gripper) - 1)
        if count < 1:
            return None
        poses = self._executed(stamp_ns + step_ns * np.arange(1, count + 1, dtype=np.int64))
        world_from_ee, gripper = poses.to_matrices()
        return ChunkPrefix(world_from_ee=world_from_ee, gripper=gripper, valid_arms=poses.valid_arms)

    def _planned(self, times_ns: NDArray[np.int64]) -> Poses:
        if len(self._plans) == 1:
            return self._plans[0].interpolate(times_ns)
        return average([plan.interpolate(times_ns) for plan in self._plans], ensemble_weights(len(self._plans)))

    def _executed(self, times_ns: NDArray[np.int64]) -> Poses:
        planned = self._planned(times_ns)
        blend_end_ns = self._blend_start_ns + self._blend_ns
        if self._outgoing is None or times_ns[0] >= blend_end_ns:
            return planned
        ramp = np.clip((times_ns - self._blend_start_ns) / max(self._blend_ns, 1), 0.0, 1.0)
        return blend(self._outgoing.interpolate(times_ns), planned, ramp * ramp * (3.0 - 2.0 * ramp))

    def _hand_over(self, now_ns: int, start_ns: int) -> None:
        """Store the motion executed so far up to the end of the blend that begins at ``start_ns``."""
        if not self._plans:
            return
        end_ns = start_ns + self._blend_ns
        count = min(max(-(-(end_ns - now_ns) // _KNOT_NS), 1) + 1, _MAX_KNOTS)
        corners = self._plans[-1].times_within(now_ns, end_ns)
        times_ns = np.union1d(np.linspace(now_ns, end_ns, count).astype(np.int64), corners)
        self._outgoing = Trajectory(times_ns, self._executed(times_ns))
        self._blend_start_ns = start_ns


def _instants(now_ns: int) -> NDArray[np.int64]:
    return np.array([now_ns], dtype=np.int64)


def _with_present(planned: PlannedChunk) -> Trajectory:
    """Convert a chunk to a trajectory that begins at the state it was planned from."""
    chunk, present = planned.chunk, planned.request.observation.arms
    first = np.array([np.eye(4) if arm is None else arm.world_from_ee for arm in present])
    opening = np.array([0.0 if arm is None else arm.gripper for arm in present])
    knots = Poses.from_matrices(np.concatenate([first[None], chunk.world_from_ee]),
                     np.concatenate([opening[None], chunk.gripper]), chunk.valid_arms)
    return Trajectory(np.concatenate([[chunk.stamp_ns], chunk.due_ns]), knots)
