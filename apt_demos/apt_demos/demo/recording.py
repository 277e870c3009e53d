"""What a demonstration leaves behind, as plain values; and what it amounts to.

Knows neither ROS nor pictures: the watcher fills a :class:`Recording`, the report
and the film read it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.geometry import angle_between
from apt_policy.core.sample import HoldReason

# A loop slower than this share of the contract's rate does not count as running at that rate.
RATE_FRACTION = 0.95
# Servos trail a moving target: at the contract's 0.25 m/s, three control periods are 15 mm.
FOLLOWED_WITHIN_M = 0.02
# Arms that moved less than this prove nothing by standing still.
MOVED_AT_LEAST_M = 0.02
# Why a loop waits when images, plans or the clock come late, which they do on a machine that cannot keep up.
LATENESS = frozenset(reason.name for reason in (
    HoldReason.STALE_STREAM, HoldReason.NO_CHUNK, HoldReason.CHUNK_EXPIRED, HoldReason.CLOCK_JUMP))


class Cause(Enum):
    """What a shortcoming is put down to."""

    SLOW_MACHINE = auto()
    """Things came late, so that targets are missing; a lower speed may mend it. What else was measured counts not."""
    FAULT = auto()


@dataclass(frozen=True, kw_only=True)
class Shortcoming:
    """One thing that did not go as it should."""

    cause: Cause
    text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmTrack:
    """Targets of one arm beside the poses that it had at the same instants."""

    stamp_ns: NDArray[np.int64]
    """(N,)."""
    base_from_target: NDArray[np.float64]
    """(N, 4, 4)."""
    base_from_reached: NDArray[np.float64]
    """(N, 4, 4)."""
    gripper: NDArray[np.float64]
    """(N,) commanded opening, 0 closed .. 1 open."""

    @property
    def position_error(self) -> NDArray[np.float64]:
        """(N,) [m]."""
        difference = self.base_from_target[:, :3, 3] - self.base_from_reached[:, :3, 3]
        return np.linalg.norm(difference, axis=-1)

    @property
    def rotation_error(self) -> NDArray[np.float64]:
        """(N,) [rad]."""
        return angle_between(self.base_from_target[:, :3, :3], self.base_from_reached[:, :3, :3])

    @property
    def reach(self) -> float:
        """Diagonal of the box that the reached positions span [m]."""
        if not len(self.stamp_ns):
            return 0.0
        return float(np.linalg.norm(np.ptp(self.base_from_reached[:, :3, 3], axis=0)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One moment of the film."""

    stamp_ns: int
    jpegs: Mapping[str, bytes]
    """Encoded image of each camera."""
    plans: Mapping[str, NDArray[np.float64]]
    """(T, 3) planned positions of each arm in the world [m]."""
    prompt: str
    holding: str
    """Name of the hold reason, empty while targets flow."""


@dataclass(frozen=True, kw_only=True)
class StreamRate:
    """Rate of one input as the policy node saw it [Hz]."""

    stream: str
    rate_hz: float
    expected_hz: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """All that was watched between enabling the policy and stopping it."""

    control_rate_hz: float
    """Rate that the contract asks for."""
    duration_s: float
    """On the clock of the stamps (simulated time in simulation)."""
    wall_s: float
    arms: Mapping[str, ArmTrack]
    targets_sent: int
    chunks: int
    streams: tuple[StreamRate, ...]
    holds: Mapping[str, int]
    """Control ticks without a target, by reason."""
    latency_s: tuple[float, float]
    """Observation to first target of its chunk, p50 and p95."""
    inference_s: tuple[float, float]
    """p50 and p95."""
    frames: tuple[Frame, ...]

    @property
    def target_rate_hz(self) -> float:
        """Targets a second, on the clock of the stamps."""
        return self.targets_sent / self.duration_s if self.duration_s > 0 else 0.0

    @property
    def real_time_factor(self) -> float:
        """Seconds on the clock of the stamps per second on the wall."""
        return self.duration_s / self.wall_s if self.wall_s > 0 else 0.0

    @property
    def too_slow(self) -> bool:
        """Whether targets are missing, and no more than a few of them for another reason than lateness.

        A tick that a running loop missed altogether counts as late: it says that the loop got no processor time.
        """
        wanted = self.duration_s * self.control_rate_hz
        otherwise = sum(ticks for reason, ticks in self.holds.items() if reason not in LATENESS)
        runs = self.targets_sent > 0 or LATENESS & self.holds.keys()
        return self._short_of_targets and bool(runs) and otherwise <= (1 - RATE_FRACTION) * wanted

    def shortcomings(self) -> list[Shortcoming]:
        """Why the demonstration did not succeed; empty when it did."""
        if self.too_slow:
            held = ', '.join(f'{ticks} ticks held for {reason}' for reason, ticks in self.holds.items())
            return [Shortcoming(cause=Cause.SLOW_MACHINE, text=f'{self._flow}; real-time factor '
                                f'{self.real_time_factor:.2f}, {held or "no tick held, so the loop missed ticks"}')]
        return [Shortcoming(cause=Cause.FAULT, text=text) for text in self._faults()]

    @property
    def _short_of_targets(self) -> bool:
        return self.target_rate_hz < RATE_FRACTION * self.control_rate_hz

    @property
    def _flow(self) -> str:
        return (f'targets flowed at {self.target_rate_hz:.1f} Hz; the contract asks for '
                f'{self.control_rate_hz:.1f} Hz')

    def _faults(self) -> list[str]:
        wrong = []
        if self._short_of_targets:
            wrong.append(self._flow)
        for name, track in self.arms.items():
            if not len(track.stamp_ns):
                wrong.append(f'arm {name} received no target')
            elif (error := float(np.median(track.position_error))) > FOLLOWED_WITHIN_M:
                wrong.append(f'arm {name} trailed its targets by {1e3 * error:.0f} mm (median); '
                             f'at most {1e3 * FOLLOWED_WITHIN_M:.0f} mm count as following')
        # Which arm has work to do, the instruction says.
        if (reach := max((track.reach for track in self.arms.values()), default=0.0)) < MOVED_AT_LEAST_M:
            wrong.append(f'no arm went farther than {1e3 * reach:.0f} mm')
        return wrong
