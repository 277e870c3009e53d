"""A planner that answers in simulated time: at once, or after a delay that is said beforehand.

Implements :class:`apt_policy.inference.worker.worker.Worker` for a loop whose clock stands still while the planner
thinks, so that a run depends on nothing but its seed.
"""

from apt_policy.inference.ports import Clock, PlanFailure, PlannedChunk, Planner, PlanRequest
from apt_policy.inference.worker.worker import WorkerState, run_plan
from apt_sim.evaluation.stopwatch import Stopwatch


class InstantWorker:
    """Runs the planner inside :meth:`submit`."""

    def __init__(self, planner: Planner, clock: Clock, *, delay_s: float, stopwatch: Stopwatch) -> None:
        """
        Args:
            planner: stays its maker's to close.
            clock: simulated time.
            delay_s: from an observation to its plan, on that clock [s].
            stopwatch: is told how long the planner took.
        """
        self._planner, self._clock, self._stopwatch = planner, clock, stopwatch
        self._delay_ns = round(delay_s * 1e9)
        self._ready: tuple[int, PlannedChunk | PlanFailure] | None = None

    @property
    def state(self) -> WorkerState:
        """Busy while an answer is under way."""
        return WorkerState.IDLE if self._ready is None else WorkerState.BUSY

    def warm_up(self) -> None:
        """Make the planner ready; its noise starts over, so that trials do not depend on those before."""
        self._ready = None
        self._planner.warm_up()

    def submit(self, request: PlanRequest) -> None:
        """Plan now; the answer can be fetched when the delay has passed."""
        with self._stopwatch.on('inference'):
            outcome = run_plan(self._planner, request)
        self._ready = (self._clock.now_ns() + self._delay_ns, outcome)

    def poll(self) -> PlannedChunk | PlanFailure | None:
        """The answer, once it is due."""
        if self._ready is None or self._clock.now_ns() < self._ready[0]:
            return None
        outcome, self._ready = self._ready[1], None
        return outcome

    def close(self, timeout_s: float = 2.0) -> None:
        """Drop what is under way."""
        self._ready = None
