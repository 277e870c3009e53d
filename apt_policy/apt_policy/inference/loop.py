"""Policy loop: the thread-safe object that callbacks, worker and control timer share.

Callbacks call the operator's methods, an observer thread calls :meth:`PolicyLoop.observe`, and
the control timer calls :meth:`PolicyLoop.tick` and publishes the target that it returns; on a hold
nothing is published, so the arms keep their last command. All times are arguments; events for the
log and for messages are read with :meth:`PolicyLoop.drain_events`.
"""

import threading

from apt_policy.core.prompt import PromptError, clean_prompt
from apt_policy.core.safety import SafetyFilter
from apt_policy.core.sample import Hold, HoldReason, Target
from apt_policy.inference.chunking import ChunkExecutor
from apt_policy.inference.counters import Counters
from apt_policy.inference.motion_checks import EnableInterlock, TargetGuard, first_stale_stream, validate_chunk
from apt_policy.inference.ports import Clock, ObservationSource, PlanFailure, PlannedChunk, PlanRequest, SteadyClock
from apt_policy.inference.report import (
    ChunkAccepted,
    Event,
    EventLog,
    LoopConfig,
    LoopStatus,
    OperatorResponse,
    PlannerFailed,
    PromptChanged,
)
from apt_policy.inference.worker.worker import Worker, WorkerState


class PolicyLoop:
    """Thread-safe policy loop; no method waits, except that :meth:`observe` decodes images."""

    def __init__(self, *, source: ObservationSource, worker: Worker, safety: SafetyFilter,
                 arms: tuple[str, ...], config: LoopConfig, steady: Clock | None = None) -> None:
        """Create the loop, inactive and disabled.

        Args:
            source: source of observations.
            worker: worker of the planner; the caller warms it up and closes it.
            safety: safety filter of the targets, used by this loop only.
            arms: names of the contract's arms, in its order.
            config: configuration of plan execution.
            steady: clock of the dead-man switch.
        """
        self._source = source
        self._worker = worker
        self._guard = TargetGuard(safety, arms)
        self._steady = steady or SteadyClock()
        self._executor = ChunkExecutor(mode=config.mode, blend_s=config.blend_s,
                                       ensemble_size=config.ensemble_size)
        self._replan_period_ns = round(config.replan_period_s * 1e9)
        self._interlock = EnableInterlock(dead_man_timeout_s=config.dead_man_timeout_s)
        self._counters = Counters()
        self._lock = threading.RLock()
        self._events = EventLog()
        self._epoch = 0
        self._prompt = ''
        self._refused_input: Hold | None = None
        self._worker_failure = 'it is not running'
        self._stood_still = True
        self._unexecuted_stamp_ns: int | None = None
        self._last_tick_ns: int | None = None

    # Requests of operators.

    def activate(self) -> None:
        """Activate the loop: clear the fault; the arms stay disabled."""
        with self._lock:
            self._interlock.active = True
            self._interlock.enabled = False
            self._restart()

    def deactivate(self) -> None:
        """Stop at once; a chunk that is still being inferred will be dropped."""
        with self._lock:
            self._interlock.active = False
            self._interlock.enabled = False
            self._drop_plans()
            if (blocked := self._interlock.blocking_hold(self._steady.now_ns())) is not None:
                self._events.record_outcome(blocked)

    def enable(self, enabled: bool) -> OperatorResponse:
        """Let the arms move, or stop them at once. Enabling clears a latched fault."""
        with self._lock:
            refusal = self._refusal() if enabled else None
            if refusal is None:
                self._interlock.enabled = enabled
                self._restart() if enabled else self._drop_plans()
            return self._respond(refusal, 'enabled' if enabled else 'disabled')

    def reset(self) -> OperatorResponse:
        """Clear chunks, fault and last target; enable and prompt are kept. The request is refused without a planner."""
        with self._lock:
            refusal = self._planner_dead()
            if refusal is None:
                self._restart()
            return self._respond(refusal, 'reset')

    def set_prompt(self, text: str) -> OperatorResponse:
        """Follow an instruction from a new chunk; setting the active instruction again changes nothing."""
        try:
            prompt = clean_prompt(text)
        except PromptError as error:
            with self._lock:
                return self._respond(str(error), '')
        with self._lock:
            if prompt == self._prompt:
                return self._respond(None, 'this prompt is already active')
            self._change_prompt(prompt)
            return self._respond(None, f'following {prompt!r}')

    def clear_prompt(self, *, epoch: int) -> None:
        """Remove the instruction, so that the arms hold; do nothing if ``epoch`` has passed."""
        with self._lock:
            if epoch == self._epoch and self._prompt:
                self._change_prompt('')

    # Reports of the node.

    def dead_man(self, pressed: bool) -> None:
        """Record a message of the dead-man switch."""
        with self._lock:
            self._interlock.record_dead_man(pressed, self._steady.now_ns())

    def second_publishers(self, topics: tuple[str, ...]) -> None:
        """Record the target topics that another node publishes now; any of them is a fault while enabled."""
        with self._lock:
            self._interlock.second_publishers = topics
            if topics and self._interlock.enabled:
                self._record_fault(self._interlock.second_publisher_hold())

    def clock_jumped(self, detail: str) -> None:
        """Drop all data and chunks after a jump of the stamps' clock."""
        with self._lock:
            self._last_tick_ns = None
            self._source.clear()
            self._drop_plans()
            if self._interlock.enabled:
                self._interlock.latch(HoldReason.CLOCK_JUMP, detail)

    # Control cycle.

    def observe(self, now_ns: int) -> None:
        """Submit an observation to the worker if a chunk is needed and the worker is idle.

        Images are decoded without the lock, so this must not run in the control timer's thread.
        """
        with self._lock:
            self._collect(now_ns)
            if not self._wants_plan(now_ns):
                return
            epoch, prompt = self._epoch, self._prompt
        seen = self._source.snapshot(now_ns, prompt)
        with self._lock:
            if epoch != self._epoch:
                return
            self._refused_input = seen if isinstance(seen, Hold) else None
            if isinstance(seen, Hold):
                if seen.reason is HoldReason.CLOCK_JUMP:
                    self._record_fault(seen)
            else:
                prefix = self._executor.committed_prefix(seen.stamp_ns, delay_ns=self._counters.usual_delay_ns())
                self._worker.submit(PlanRequest(observation=seen, epoch=epoch, prefix=prefix))

    def tick(self, now_ns: int) -> Target | Hold:
        """Return the target to publish now, or a hold; called once per control period."""
        with self._lock:
            if self._last_tick_ns is not None and now_ns < self._last_tick_ns:
                self.clock_jumped(f'the clock went back by {(self._last_tick_ns - now_ns) / 1e9:.3f} s')
            self._last_tick_ns = now_ns
            self._collect(now_ns)
            outcome = self._decide(now_ns)
            self._record_outcome(outcome, now_ns)
            return outcome

    def drain_events(self) -> tuple[Event, ...]:
        """Return the events since the last call, oldest first."""
        with self._lock:
            return self._events.drain()

    def status(self) -> LoopStatus:
        """Return the present status."""
        with self._lock:
            return LoopStatus(hold=self._events.hold, fault=self._interlock.fault, active=self._interlock.active,
                              enabled=self._interlock.enabled, prompt=self._prompt, epoch=self._epoch,
                              worker=self._worker.state, counts=self._counters.report(),
                              clamped_ticks=self._guard.clamped_ticks)

    # Private methods, called with the lock held.

    def _refusal(self) -> str | None:
        if not self._interlock.active:
            return 'the node is not active: activate it first'
        if (gone := self._planner_dead()) is not None:
            return gone
        if self._interlock.second_publishers:
            return f'another node also publishes {", ".join(self._interlock.second_publishers)}: stop it first'
        return None

    def _planner_dead(self) -> str | None:
        if self._worker.state is not WorkerState.DEAD:
            return None
        if self._last_tick_ns is not None:
            # The state may have changed in this call; poll for the failure that ended the worker.
            self._collect(self._last_tick_ns)
        return f'the planner has ended ({self._worker_failure}): clean up and configure the node again'

    def _respond(self, refusal: str | None, message: str) -> OperatorResponse:
        return OperatorResponse(accepted=refusal is None, message=message if refusal is None else refusal,
                      epoch=self._epoch)

    def _restart(self) -> None:
        self._interlock.fault = None
        self._guard.recheck()
        self._drop_plans()

    def _drop_plans(self) -> None:
        self._epoch += 1
        self._executor.clear(self._epoch)
        self._refused_input = None
        self._unexecuted_stamp_ns = None
        self._stood_still = True

    def _change_prompt(self, prompt: str) -> None:
        self._prompt = prompt
        self._drop_plans()
        self._events.append(PromptChanged(prompt=prompt))

    def _wants_plan(self, now_ns: int) -> bool:
        newest_ns = self._executor.newest_ns
        if newest_ns is not None and now_ns - newest_ns < self._replan_period_ns:
            return False
        return bool(self._prompt) and self._worker.state is WorkerState.IDLE and (
            self._interlock.blocking_hold(self._steady.now_ns()) is None)

    def _record_fault(self, hold: Hold) -> None:
        if self._interlock.latch(hold.reason, hold.detail):
            self._drop_plans()

    def _collect(self, now_ns: int) -> None:
        while (result := self._worker.poll()) is not None:
            if isinstance(result, PlanFailure):
                self._worker_failure = result.message
                self._events.append(PlannerFailed(failure=result))
                self._record_fault(Hold(reason=HoldReason.INFERENCE_FAILED, detail=result.message))
            else:
                self._accept(result, now_ns)

    def _accept(self, planned: PlannedChunk, now_ns: int) -> None:
        defect = validate_chunk(planned)
        if defect is not None and planned.request.epoch == self._epoch:
            self._record_fault(defect)
        elif defect is None and self._executor.add_chunk(planned, now_ns=now_ns):
            self._counters.count_chunk(inference_s=planned.chunk.inference_s,
                                       delay_ns=max(0, now_ns - planned.chunk.stamp_ns))
            self._unexecuted_stamp_ns = planned.chunk.stamp_ns
            self._events.append(ChunkAccepted(planned=planned))
            return
        self._counters.count_dropped()

    def _decide(self, now_ns: int) -> Target | Hold:
        blocked = self._interlock.blocking_hold(self._steady.now_ns())
        if blocked is not None:
            return blocked
        planned, arms = self._executor.target(now_ns), self._source.arm_states(now_ns)
        holds = [hold for hold in (self._not_ready_hold(now_ns), self._refused_input,
                                   first_stale_stream(self._source.ages(now_ns)), arms) if isinstance(hold, Hold)]
        if holds or isinstance(arms, Hold):
            return self._events.select_hold(holds)
        # Without a chunk and with a bad input, the input is the cause.
        if isinstance(planned, Hold):
            return planned
        if self._stood_still:
            self._executor.blend_from(self._guard.start_poses(arms, now_ns), now_ns=now_ns)
            planned = self._executor.target(now_ns)
        return planned if isinstance(planned, Hold) else self._guard.filter_target(planned, arms)

    def _not_ready_hold(self, now_ns: int) -> Hold | None:
        if not self._prompt:
            return Hold(reason=HoldReason.NO_PROMPT, detail='no instruction was given')
        if self._worker.state is WorkerState.DEAD:
            # The state may have changed in this call; poll for the failure that ended the worker.
            self._collect(now_ns)
            return Hold(reason=HoldReason.INFERENCE_FAILED,
                        detail=f'the planner has ended: {self._worker_failure}')
        return None

    def _record_outcome(self, outcome: Target | Hold, now_ns: int) -> None:
        self._counters.count_tick(outcome)
        self._stood_still = isinstance(outcome, Hold)
        if isinstance(outcome, Target) and self._unexecuted_stamp_ns is not None:
            self._counters.count_latency((now_ns - self._unexecuted_stamp_ns) / 1e9)
            self._unexecuted_stamp_ns = None
        self._events.record_outcome(outcome)
