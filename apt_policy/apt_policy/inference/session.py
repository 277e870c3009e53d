"""Runs of the policy with an instruction and a time limit: the logic of the RunPolicy action without ROS.

A run ends at its time limit, by a cancel, by a request of an operator, or by a fault. The instruction is then
removed, so the arms hold, and the policy stays enabled for the next run.
"""

import threading
from dataclasses import dataclass
from enum import IntEnum

from apt_policy.core.sample import HoldReason
from apt_policy.inference.loop import PolicyLoop
from apt_policy.inference.report import LoopStatus, OperatorResponse


class Termination(IntEnum):
    """Reason for the end of a run; the values of the constants in ``apt_msgs/RunPolicy``."""

    TIME_UP = 1
    CANCELED = 2
    DISABLED = 3
    DEACTIVATED = 4
    FAILED = 5
    CLIENT_GONE = 6


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """Progress of a run."""

    hold_reason: HoldReason
    elapsed_s: float
    targets_sent: int
    """Number of targets since the start of the run."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Result of a run that has ended."""

    termination: Termination
    message: str
    elapsed_s: float


@dataclass(frozen=True, kw_only=True)
class _Run:
    epoch: int
    began_ns: int
    limit_s: float
    targets_before: int


class RunSession:
    """Session with at most one run at a time. Thread-safe; no method waits."""

    def __init__(self, loop: PolicyLoop) -> None:
        """Create a session without a run."""
        self._loop = loop
        self._lock = threading.Lock()
        self._run: _Run | None = None
        self._called_off: tuple[Termination, str] | None = None

    def begin(self, prompt: str, *, max_duration_s: float, now_ns: int) -> OperatorResponse:
        """Start a run if the policy is active and enabled and no other run is in progress.

        Args:
            prompt: instruction.
            max_duration_s: time limit on the clock of the stamps [s]; 0 for none.
            now_ns: present time on that clock [ns].
        """
        with self._lock:
            status = self._loop.status()
            refusal = _refusal(status, max_duration_s, self._run is not None)
            if refusal is not None:
                return OperatorResponse(accepted=False, message=refusal, epoch=status.epoch)
            answer = self._loop.set_prompt(prompt)
            if answer.accepted:
                self._called_off = None
                self._run = _Run(epoch=answer.epoch, began_ns=now_ns, limit_s=max_duration_s,
                                 targets_before=status.counts.targets_sent)
            return answer

    def cancel(self) -> None:
        """Stop the arms before the next control tick; :meth:`update` then reports the end."""
        self._call_off(Termination.CANCELED, 'canceled')

    def abandon(self, why: str) -> None:
        """End a run whose client has left; ``why`` becomes the message of its result."""
        self._call_off(Termination.CLIENT_GONE, why)

    def update(self, now_ns: int) -> RunProgress | RunResult | None:
        """Return progress or, once, the result of the run; None if there is no run."""
        with self._lock:
            if self._run is None:
                return None
            run, status = self._run, self._loop.status()
            elapsed_s = (now_ns - run.began_ns) / 1e9
            end = self._end(run, status, elapsed_s)
            if end is None:
                return RunProgress(hold_reason=status.hold.reason, elapsed_s=elapsed_s,
                                targets_sent=status.counts.targets_sent - run.targets_before)
            self._loop.clear_prompt(epoch=run.epoch)
            self._run = None
            return RunResult(termination=end[0], message=end[1], elapsed_s=elapsed_s)

    def _call_off(self, termination: Termination, why: str) -> None:
        with self._lock:
            if self._run is not None and self._called_off is None:
                self._called_off = termination, why
                self._loop.clear_prompt(epoch=self._run.epoch)

    def _end(self, run: _Run, status: LoopStatus, elapsed_s: float) -> tuple[Termination, str] | None:
        if self._called_off is not None:
            return self._called_off
        if not status.active:
            return Termination.DEACTIVATED, 'the node was deactivated'
        if status.fault is not None:
            return Termination.FAILED, f'{status.fault.reason.name}: {status.fault.detail}'
        if not status.enabled:
            return Termination.DISABLED, 'the policy was disabled'
        if status.epoch != run.epoch:
            return Termination.CANCELED, 'another prompt, a reset or a re-enable ended the run'
        if run.limit_s > 0 and elapsed_s >= run.limit_s:
            return Termination.TIME_UP, f'the time limit of {run.limit_s:g} s is over'
        return None


def _refusal(status: LoopStatus, max_duration_s: float, busy: bool) -> str | None:
    if not max_duration_s >= 0:
        return f'max_duration is {max_duration_s:g} s; expected 0 (no limit) or more'
    if busy:
        return 'another run is in progress: cancel it first'
    if not status.active:
        return 'the node is not active: activate it first'
    if status.fault is not None:
        return f'a fault is latched ({status.fault.reason.name}: {status.fault.detail}): re-enable first'
    if not status.enabled:
        return 'the policy is not enabled: call ~/enable first'
    return None
