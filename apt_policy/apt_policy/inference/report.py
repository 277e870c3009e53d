"""Configuration, operator responses, events and status of the policy loop.

``loop`` makes these values and the node turns them into messages and log lines.
"""

from collections import deque
from dataclasses import dataclass

from apt_policy.core.sample import Hold, HoldReason, Target
from apt_policy.inference.chunking import ChunkMode
from apt_policy.inference.counters import Counts
from apt_policy.inference.ports import PlanFailure, PlannedChunk
from apt_policy.inference.worker.worker import WorkerState

_MOVING = Hold(reason=HoldReason.NONE)
# The node drains the log at every control tick; this only bounds it where no node does.
_MAX_EVENTS = 256


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Configuration of plan execution."""

    mode: ChunkMode = ChunkMode.NEWEST_BLEND
    blend_s: float = 0.2
    """Time over which a new plan is blended in [s]."""
    ensemble_size: int = 4
    replan_period_s: float = 0.0
    """Shortest time between the observations of two plans [s]; 0: plan whenever the worker is free."""
    dead_man_timeout_s: float | None = None
    """Time for which one dead-man message is valid [s]; None uses no switch."""


@dataclass(frozen=True, kw_only=True)
class OperatorResponse:
    """Response to an operator's request."""

    accepted: bool
    message: str
    """Confirmation, or the reason for the refusal."""
    epoch: int
    """Epoch after the request."""


@dataclass(frozen=True, kw_only=True)
class HoldChanged:
    """Change of the hold reason: targets stopped, resumed, or are held for another reason."""

    hold: Hold
    previous: HoldReason


@dataclass(frozen=True, kw_only=True, eq=False)
class ChunkAccepted:
    """Start of the execution of a new chunk."""

    planned: PlannedChunk


@dataclass(frozen=True, kw_only=True)
class PromptChanged:
    """Change of the active instruction; empty if there is none."""

    prompt: str


@dataclass(frozen=True, kw_only=True)
class PlannerFailed:
    """Failure of the planner: it raised, died or hangs."""

    failure: PlanFailure


Event = HoldChanged | ChunkAccepted | PromptChanged | PlannerFailed


@dataclass(frozen=True, kw_only=True)
class LoopStatus:
    """State of the loop at one instant."""

    hold: Hold
    """Reason NONE while targets flow."""
    fault: Hold | None
    """Latched fault, which holds the arms until an operator re-enables or resets."""
    active: bool
    enabled: bool
    prompt: str
    """Empty if there is none."""
    epoch: int
    worker: WorkerState
    counts: Counts
    clamped_ticks: int
    """Number of targets that the safety filter limited."""


class EventLog:
    """Present hold and the events since the last :meth:`drain`; a hold reason is recorded once, however long it lasts.

    Not thread-safe; the loop's lock guards it.
    """

    def __init__(self) -> None:
        """Start with the hold INACTIVE."""
        self.hold = Hold(reason=HoldReason.INACTIVE)
        """Present hold; reason NONE while targets are published."""
        self._events: deque[Event] = deque(maxlen=_MAX_EVENTS)

    def append(self, event: Event) -> None:
        """Append an event."""
        self._events.append(event)

    def record_outcome(self, outcome: Target | Hold) -> None:
        """Record the outcome of a control tick."""
        hold = outcome if isinstance(outcome, Hold) else _MOVING
        if hold.reason is not self.hold.reason:
            self.append(HoldChanged(hold=hold, previous=self.hold.reason))
        self.hold = hold

    def select_hold(self, holds: list[Hold]) -> Hold:
        """Choose one of several simultaneous holds: the one with the present reason while it lasts, else the first."""
        return next((hold for hold in holds if hold.reason is self.hold.reason), holds[0])

    def drain(self) -> tuple[Event, ...]:
        """Return the events since the last call, oldest first, and clear the log."""
        events = tuple(self._events)
        self._events.clear()
        return events
