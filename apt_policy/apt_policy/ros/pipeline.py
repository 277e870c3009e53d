"""Everything that exists between configure and cleanup, put together: streams to loop, loop to worker.

It owns the worker and the thread that makes observations; publishing, services and
lifecycle are the node's. No rclpy here but what parameters and transforms bring.
"""

import threading
import traceback
from collections.abc import Callable

from apt_policy.core.align import ObservationAssembler
from apt_policy.core.contract import RobotContract
from apt_policy.core.safety import SafetyFilter
from apt_policy.core.streams import TimeBase
from apt_policy.core.transforms import TransformSource
from apt_policy.inference.loop import PolicyLoop
from apt_policy.inference.ports import Clock, PlannerFactory
from apt_policy.inference.report import LoopConfig
from apt_policy.inference.session import RunSession
from apt_policy.inference.worker.process_worker import start_worker
from apt_policy.inference.worker.worker import Worker, WorkerConfig, WorkerError
from apt_policy.ros.policy_params import PolicyParams

_POLL_S = 0.05
_CLOSE_S = 2.0


class ConfigureAborted(Exception):
    """The node is told to end while it still configures."""


class Pipeline:
    """Built inactive, disabled, with a planner that still warms up: call :meth:`warm_up`."""

    def __init__(self, *, contract: RobotContract, params: PolicyParams, transforms: TransformSource,
                 clock: Clock, factory: PlannerFactory, report: Callable[[str], None]) -> None:
        """Put it together and start the worker.

        Args:
            clock: of the stamps.
            factory: makes the planner, in the worker.
            report: told of what went wrong where nobody waits for an answer.

        Raises:
            ValueError: a camera or arm that the contract lacks.
        """
        self.contract = contract
        self.assembler = ObservationAssembler(
            contract, transforms, cameras=params.cameras or None,
            time_bases=dict.fromkeys(params.stamp_on_receipt, TimeBase.RECEIVE))
        safety = SafetyFilter(contract)
        self.warnings = safety.warnings
        self._worker = _start_worker(contract, params, factory)
        self.loop = PolicyLoop(
            source=self.assembler, worker=self._worker, safety=safety, arms=tuple(contract.arms),
            config=LoopConfig(mode=params.chunk_mode, blend_s=params.blend_s,
                                  ensemble_size=params.ensemble_size,
                                  replan_period_s=params.replan_period_s,
                                  dead_man_timeout_s=params.dead_man_timeout_s or None))
        self.session = RunSession(self.loop)
        self._observer = _Observer(self.loop, clock, report)

    def warm_up(self, keep_waiting: Callable[[], bool]) -> None:
        """Wait until the planner is ready.

        Args:
            keep_waiting: asked every 50 ms; False ends the wait.

        Raises:
            WorkerError: the planner cannot be made ready; its own message.
            ConfigureAborted: ``keep_waiting`` said so.
        """
        failures: list[WorkerError] = []
        waiter = threading.Thread(target=_warm_up, args=(self._worker, failures), name='apt_warm_up',
                                  daemon=True)
        waiter.start()
        while waiter.is_alive():
            if not keep_waiting():
                raise ConfigureAborted
            waiter.join(_POLL_S)
        if failures:
            raise failures[0]
        self._observer.start()

    def observe_soon(self) -> None:
        """Have the observer thread look whether a plan is wanted."""
        self._observer.wake()

    def close(self) -> None:
        """Stop the arms, then the threads, then the worker; nothing is left behind."""
        self.loop.deactivate()
        self._observer.stop()
        self._worker.close(_CLOSE_S)


class _Observer:
    """Makes observations in a thread of its own: decoding images would delay the control tick."""

    def __init__(self, loop: PolicyLoop, clock: Clock, report: Callable[[str], None]) -> None:
        self._loop = loop
        self._clock = clock
        self._report = report
        self._wanted = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name='apt_observer', daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._wanted.set()

    def stop(self) -> None:
        self._ending = True
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._ending:
                return
            try:
                self._loop.observe(self._clock.now_ns())
            except Exception:
                # A defect of ours: without this thread the arms would hold, and nobody would know why.
                self._report(f'an observation could not be made:\n{traceback.format_exc()}')


def _warm_up(worker: Worker, failures: list[WorkerError]) -> None:
    try:
        worker.warm_up()
    except WorkerError as error:
        failures.append(error)


def _start_worker(contract: RobotContract, params: PolicyParams, factory: PlannerFactory) -> Worker:
    return start_worker(
        params.worker, factory, cameras=len(contract.cameras), image_size=contract.image_size,
        config=WorkerConfig(
            start_timeout_s=params.start_timeout_s, plan_timeout_s=params.inference_timeout_s,
            torch_threads=params.inference_threads or None, nice=params.worker_nice))
