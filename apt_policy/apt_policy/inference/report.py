"""What the policy loop is told and what it tells: settings, answers, events, status.

Values only; ``loop`` makes them and the node turns them into messages and log lines.
"""

from dataclasses import dataclass

from apt_policy.core.sample import Hold, HoldReason
from apt_policy.inference.chunking import ChunkMode
from apt_policy.inference.counters import Counts
from apt_policy.inference.ports import Failure, Planned
from apt_policy.inference.worker.worker import WorkerState


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How plans are executed."""

    mode: ChunkMode = ChunkMode.NEWEST_BLEND
    blend_s: float = 0.2
    """Time over which a change of plan is blended in [s]."""
    ensemble_size: int = 4
    replan_period_s: float = 0.0
    """Shortest time between the observations of two plans [s]; 0: plan whenever the worker is free."""
    dead_man_timeout_s: float | None = None
    """Longest silence of the dead-man switch [s]; None: no such switch."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the loop says to an operator."""

    accepted: bool
    message: str
    epoch: int


@dataclass(frozen=True, kw_only=True)
class HoldChanged:
    """Targets stopped, resumed, or are held for another reason. Worth one log line."""

    hold: Hold
    previous: HoldReason


@dataclass(frozen=True, kw_only=True, eq=False)
class ChunkTaken:
    """A new plan is being executed."""

    planned: Planned


@dataclass(frozen=True, kw_only=True)
class PromptChanged:
    """Another instruction is followed; empty when none is."""

    prompt: str


@dataclass(frozen=True, kw_only=True)
class PlannerFailed:
    """The planner raised, died or hangs."""

    failure: Failure


Event = HoldChanged | ChunkTaken | PromptChanged | PlannerFailed


@dataclass(frozen=True, kw_only=True)
class LoopStatus:
    """The loop at one instant."""

    hold: Hold
    """Reason NONE while targets flow."""
    fault: Hold | None
    """The fault on record, which keeps the arms still until a person re-enables or resets."""
    active: bool
    enabled: bool
    prompt: str
    """Empty if there is none."""
    epoch: int
    worker: WorkerState
    counts: Counts
    clamped_ticks: int
    """Targets that the safety filter had to limit."""
