"""Recording of a demonstration as plain values, and the issues found in it.

:class:`DemoRecorder` fills a :class:`Recording`; report and video read it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.geometry import angle_between
from apt_policy.core.sample import HoldReason

# Share of the contract's control rate that a loop must reach.
RATE_FRACTION = 0.95
# Servos lag behind a moving target: at the contract's 0.25 m/s, three control periods are 15 mm.
FOLLOWED_WITHIN_M = 0.02
# An arm that moves less does not show that it tracks its targets.
MOVED_AT_LEAST_M = 0.02
# Hold reasons of late images, plans or clock messages, which occur on a machine that is too slow.
LATENESS = frozenset(reason.name for reason in (
    HoldReason.STALE_STREAM, HoldReason.NO_CHUNK, HoldReason.CHUNK_EXPIRED, HoldReason.CLOCK_JUMP))


class IssueCause(Enum):
    """Cause of an issue."""

    SLOW_MACHINE = auto()
    """Targets are missing because messages came late; a lower speed may help, and other measurements are invalid."""
    FAULT = auto()


@dataclass(frozen=True, kw_only=True)
class RunIssue:
    """Issue found in a recording."""

    cause: IssueCause
    text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmTrack:
    """Targets of one arm, and the poses that it had at the same times."""

    stamp_ns: NDArray[np.int64]
    """(N,) times [ns]."""
    base_from_target: NDArray[np.float64]
    """(N, 4, 4)."""
    base_from_reached: NDArray[np.float64]
    """(N, 4, 4)."""
    gripper: NDArray[np.float64]
    """(N,) commanded opening, 0 closed .. 1 open."""

    @property
    def position_error(self) -> NDArray[np.float64]:
        """Position errors (N,) [m]."""
        difference = self.base_from_target[:, :3, 3] - self.base_from_reached[:, :3, 3]
        return np.linalg.norm(difference, axis=-1)

    @property
    def rotation_error(self) -> NDArray[np.float64]:
        """Rotation errors (N,) [rad]."""
        return angle_between(self.base_from_target[:, :3, :3], self.base_from_reached[:, :3, :3])

    @property
    def reach(self) -> float:
        """Diagonal of the box that the reached positions span [m]."""
        if not len(self.stamp_ns):
            return 0.0
        return float(np.linalg.norm(np.ptp(self.base_from_reached[:, :3, 3], axis=0)))


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoFrame:
    """Images, plans and text of one frame of the video."""

    stamp_ns: int
    """Time of the overview image [ns]."""
    jpegs: Mapping[str, bytes]
    """Encoded image of each camera."""
    plans: Mapping[str, NDArray[np.float64]]
    """(T, 3) planned positions of each arm in the world [m]."""
    prompt: str
    holding: str
    """Name of the hold reason, empty while targets flow."""


@dataclass(frozen=True, kw_only=True)
class StreamRate:
    """Rate of one input stream as measured by the policy node [Hz]."""

    stream: str
    rate_hz: float
    expected_hz: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """Measurements between enabling and disabling the policy."""

    control_rate_hz: float
    """Control rate of the contract [Hz]."""
    duration_s: float
    """Duration on the clock of the stamps, which is simulated time in simulation [s]."""
    wall_s: float
    """Duration in wall time [s]."""
    arms: Mapping[str, ArmTrack]
    """Tracking by arm."""
    targets_sent: int
    """Number of targets that every arm received."""
    chunks: int
    """Number of action chunks."""
    streams: tuple[StreamRate, ...]
    """Rates of the policy's inputs."""
    holds: Mapping[str, int]
    """Control ticks without a target, by reason."""
    latency_s: tuple[float, float]
    """Latency from an observation to the first target of its chunk, p50 and p95 [s]."""
    inference_s: tuple[float, float]
    """Inference time, p50 and p95 [s]."""
    frames: tuple[VideoFrame, ...]

    @property
    def target_rate_hz(self) -> float:
        """Rate of targets on the clock of the stamps [Hz]."""
        return self.targets_sent / self.duration_s if self.duration_s > 0 else 0.0

    @property
    def real_time_factor(self) -> float:
        """Duration on the clock of the stamps divided by wall time."""
        return self.duration_s / self.wall_s if self.wall_s > 0 else 0.0

    @property
    def too_slow(self) -> bool:
        """True if targets are missing, almost all of them because messages were late.

        A tick that a running loop missed counts as late, because the loop got no processor time.
        """
        expected = self.duration_s * self.control_rate_hz
        otherwise = sum(ticks for reason, ticks in self.holds.items() if reason not in LATENESS)
        runs = self.targets_sent > 0 or LATENESS & self.holds.keys()
        return self._short_of_targets and bool(runs) and otherwise <= (1 - RATE_FRACTION) * expected

    def issues(self) -> list[RunIssue]:
        """Return the issues of the demonstration; empty if it succeeded."""
        if self.too_slow:
            held = ', '.join(f'{ticks} ticks held for {reason}' for reason, ticks in self.holds.items())
            return [RunIssue(cause=IssueCause.SLOW_MACHINE, text=f'{self._flow}; real-time factor '
                             f'{self.real_time_factor:.2f}, {held or "no tick held, so the loop missed ticks"}')]
        return [RunIssue(cause=IssueCause.FAULT, text=text) for text in self._faults()]

    @property
    def _short_of_targets(self) -> bool:
        return self.target_rate_hz < RATE_FRACTION * self.control_rate_hz

    @property
    def _flow(self) -> str:
        return (f'target rate is {self.target_rate_hz:.1f} Hz, expected {self.control_rate_hz:.1f} Hz '
                'as in the contract')

    def _faults(self) -> list[str]:
        wrong = []
        if self._short_of_targets:
            wrong.append(self._flow)
        for name, track in self.arms.items():
            if not len(track.stamp_ns):
                wrong.append(f'arm {name} received no target')
            elif (error := float(np.median(track.position_error))) > FOLLOWED_WITHIN_M:
                wrong.append(f'arm {name} has a median tracking error of {1e3 * error:.0f} mm, '
                             f'expected at most {1e3 * FOLLOWED_WITHIN_M:.0f} mm')
        # One moving arm is enough: the instruction decides which arm has to move.
        if (reach := max((track.reach for track in self.arms.values()), default=0.0)) < MOVED_AT_LEAST_M:
            wrong.append(f'no arm moved more than {1e3 * reach:.0f} mm, expected at least '
                         f'{1e3 * MOVED_AT_LEAST_M:.0f} mm')
        return wrong
