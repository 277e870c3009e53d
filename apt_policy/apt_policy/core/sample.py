"""Values of observations, chunks and targets, shared by the live node, the converter and the simulator.

Frames are named left to right: ``world_from_ee`` expresses the end-effector in the
world. Lengths are metres, angles radians, times nanoseconds on the clock of the
stamps (``stamp_ns``) or seconds where a name says so.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class HoldReason(IntEnum):
    """Reason why no new target is published; the arms then keep their last command.

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
    """Outcome of a control tick without a target."""

    reason: HoldReason
    detail: str = ''
    """Sentence for the user."""
    stream: str | None = None
    """Name of the input stream that caused the hold, as in a ``StreamReport``; None if no stream did."""


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """Image of one camera at the model's image size, with its intrinsics and pose."""

    rgb: NDArray[np.uint8]
    """(S, S, 3) RGB, letterboxed."""
    mask: NDArray[np.bool_]
    """(S, S), False on the letterbox's borders."""
    intrinsics: NDArray[np.float64]
    """(3, 3) pinhole matrix of the letterboxed image [px], pixel centres at +0.5."""
    world_from_camera: NDArray[np.float64]
    """(4, 4), optical frame: x right, y down, z forward."""
    stamp_ns: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmState:
    """Pose and gripper opening of one arm."""

    world_from_ee: NDArray[np.float64]
    """(4, 4)."""
    gripper: float
    """0 closed .. 1 open."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """Input of the policy at one instant; nothing in it is newer than ``stamp_ns``."""

    stamp_ns: int
    prompt: str
    views: tuple[View | None, ...]
    """One entry per camera of the contract, in its order; None for an absent camera."""
    history: tuple[tuple[ArmState | None, ...], ...]
    """Arm states of past instants, oldest first; the last entry is the present. Arms are in the contract's order, None
    if absent."""

    @property
    def arms(self) -> tuple[ArmState | None, ...]:
        """Present state of every arm."""
        return self.history[-1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunk:
    """Action chunk: T future states of every arm.

    Row k is due at ``stamp_ns + (k + 1) * step_ns``.
    """

    stamp_ns: int
    """Stamp of the observation that the chunk was planned from."""
    step_ns: int
    world_from_ee: NDArray[np.float64]
    """(T, A, 4, 4)."""
    gripper: NDArray[np.float64]
    """(T, A), 0 closed .. 1 open."""
    valid_arms: NDArray[np.bool_]
    """(A,); rows of an absent arm are undefined."""
    epoch: int
    """Counter that a new prompt, a reset or a re-enable increments; chunks of an older epoch are dropped."""
    prompt: str
    inference_s: float
    """Duration of planning, wall clock [s]."""

    @property
    def due_ns(self) -> NDArray[np.int64]:
        """(T,) instants at which the rows are due [ns]."""
        steps = np.arange(1, len(self.gripper) + 1, dtype=np.int64)
        return self.stamp_ns + steps * self.step_ns


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """Target of all arms for one control tick."""

    due_ns: int
    """Intended execution time."""
    world_from_ee: NDArray[np.float64]
    """(A, 4, 4)."""
    gripper: NDArray[np.float64]
    """(A,), 0 closed .. 1 open."""
    valid_arms: NDArray[np.bool_]
    """(A,)."""
    epoch: int
