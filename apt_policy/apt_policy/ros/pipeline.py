"""Pipeline of a configured policy: assembler, policy loop, worker and observer thread.

It exists between configure and cleanup. Publishing, services and lifecycle are the node's.
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
    """Signal that the node shuts down while it is being configured."""


class Pipeline:
    """Assembler, loop, worker and observer thread of one policy; inactive and disabled until :meth:`warm_up`."""

    def __init__(self, *, contract: RobotContract, params: PolicyParams, transforms: TransformSource,
                 clock: Clock, factory: PlannerFactory, report: Callable[[str], None]) -> None:
        """Build the pipeline and start the worker.

        Args:
            contract: robot contract.
            params: parameters of the policy node.
            transforms: source of TF frames.
            clock: clock of the stamps.
            factory: planner factory, called in the worker.
            report: receiver of errors of the observer thread.

        Raises:
            ValueError: a camera or arm is not in the contract.
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
        """Wait until the planner is ready, then start the observer thread.

        Args:
            keep_waiting: called every 50 ms; False ends the wait.

        Raises:
            WorkerError: the planner could not be built or warmed up; the message is the planner's.
            ConfigureAborted: ``keep_waiting`` returned False.
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
        """Wake the observer thread, which makes an observation if a chunk is needed."""
        self._observer.wake()

    def close(self) -> None:
        """Stop the arms, then the observer thread, then the worker."""
        self.loop.deactivate()
        self._observer.stop()
        self._worker.close(_CLOSE_S)


class _Observer:
    """Observer thread; decoding images in the control timer's thread would delay the control tick."""

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
                # A defect. Without a report the arms would hold without a visible reason.
                self._report(f'making an observation failed:\n{traceback.format_exc()}')


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
