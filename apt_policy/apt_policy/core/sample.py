"""The vocabulary: what one observation and one plan are made of.

Everything that crosses a module boundary of the suite is one of these values. It
knows nothing of ROS, of files, or of torch; the converter, the live node and the
simulator all speak it.

Frames are named left to right: ``world_from_ee`` expresses the end-effector in the
world. Lengths are metres, angles radians, times nanoseconds on the clock of the
stamps (``stamp_ns``) or seconds where a name says so.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class HoldReason(IntEnum):
    """Why no new target is published; the arm then keeps its last command.

    The values are those of the constants in ``apt_msgs/PolicyStatus``.
    """

    NONE = 0
    INACTIVE = 1
    DISABLED = 2
    NO_PROMPT = 3
    MISSING_STREAM = 4
    STALE_STREAM = 5
    BAD_INPUT = 6
    NO_CHUNK = 7
    CHUNK_EXPIRED = 8
    NON_FINITE = 9
    FAR_FROM_CURRENT = 10
    SECOND_PUBLISHER = 11
    DEAD_MAN = 12
    CLOCK_JUMP = 13
    INFERENCE_FAILED = 14


@dataclass(frozen=True, kw_only=True)
class Hold:
    """The outcome of a control tick that must not move the arm."""

    reason: HoldReason
    detail: str = ''
    """For people; nothing is decided by it."""
    stream: str | None = None
    """The input stream that is to blame, called as in a ``StreamReport``; None where none is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """What one camera contributes to an observation, at the model's image size."""

    rgb: NDArray[np.uint8]
    """(S, S, 3), letterboxed."""
    mask: NDArray[np.bool_]
    """(S, S), false on the letterbox's borders."""
    intrinsics: NDArray[np.float64]
    """(3, 3) pinhole matrix of the letterboxed image [px], pixel centres at +0.5."""
    world_from_camera: NDArray[np.float64]
    """(4, 4), optical frame: x right, y down, z forward."""
    stamp_ns: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmState:
    """Where one arm is."""

    world_from_ee: NDArray[np.float64]
    """(4, 4)."""
    gripper: float
    """0 closed .. 1 open."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """All that the policy may know at one instant; nothing in it is newer than ``stamp_ns``."""

    stamp_ns: int
    prompt: str
    views: tuple[View | None, ...]
    """One entry per camera of the contract, in its order; None where a camera is absent."""
    history: tuple[tuple[ArmState | None, ...], ...]
    """Oldest first; the last entry is the present. Arms in the contract's order, None if absent."""

    @property
    def arms(self) -> tuple[ArmState | None, ...]:
        """The present state of every arm."""
        return self.history[-1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunk:
    """A plan: T future states of every arm.

    Row k is due at ``stamp_ns + (k + 1) * step_ns``.
    """

    stamp_ns: int
    """Instant of the observation that the plan was made from."""
    step_ns: int
    world_from_ee: NDArray[np.float64]
    """(T, A, 4, 4)."""
    gripper: NDArray[np.float64]
    """(T, A), 0 closed .. 1 open."""
    valid_arms: NDArray[np.bool_]
    """(A,); rows of an arm that was absent mean nothing."""
    epoch: int
    """Bumped by a new prompt, a reset or a re-enable; chunks of an older epoch are dropped."""
    prompt: str
    inference_s: float
    """Time that the planner took, wall clock [s]."""

    @property
    def due_ns(self) -> NDArray[np.int64]:
        """(T,) instants at which the rows are due."""
        steps = np.arange(1, len(self.gripper) + 1, dtype=np.int64)
        return self.stamp_ns + steps * self.step_ns


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """What both arms are told in one control tick."""

    due_ns: int
    """Intended execution time."""
    world_from_ee: NDArray[np.float64]
    """(A, 4, 4)."""
    gripper: NDArray[np.float64]
    """(A,), 0 closed .. 1 open."""
    valid_arms: NDArray[np.bool_]
    """(A,)."""
    epoch: int
