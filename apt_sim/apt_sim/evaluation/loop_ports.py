"""Ports of the policy loop to a simulated robot: observation source, planner worker and clock.

Simulated time stands still during inference, so a rollout depends on nothing but its seed. The classes implement
:class:`apt_policy.inference.ports.ObservationSource`, :class:`apt_policy.inference.worker.worker.Worker` and
:class:`apt_policy.inference.ports.Clock`.
"""

from collections import deque
from collections.abc import Sequence

from apt_policy.core.contract import RobotContract
from apt_policy.core.images import letterbox
from apt_policy.core.sample import ArmState, Observation, View
from apt_policy.core.streams import StreamReport
from apt_policy.inference.ports import Clock, PlanFailure, PlannedChunk, Planner, PlanRequest
from apt_policy.inference.worker.worker import WorkerState, run_plan
from apt_sim.evaluation.stopwatch import Stopwatch
from apt_sim.tasks.task import GroundTruth
from apt_sim.world.cameras import CameraRig, intrinsics
from apt_sim.world.physics import Simulation


class SimulatedClock:
    """Clock of a simulation."""

    def __init__(self, simulation: Simulation) -> None:
        """Follow the time of ``simulation``."""
        self._simulation = simulation

    def now_ns(self) -> int:
        """Return the simulated time [ns]."""
        return self._simulation.time_ns


class SimulatedObservationSource:
    """Observations of a simulated robot; images are rendered only when the loop makes a plan."""

    def __init__(self, simulation: Simulation, rig: CameraRig, stopwatch: Stopwatch) -> None:
        """Start without a history.

        Args:
            simulation: robot to observe.
            rig: renderer of its cameras.
            stopwatch: measures the time of rendering.
        """
        self._simulation, self._rig, self._stopwatch = simulation, rig, stopwatch
        self._contract: RobotContract = simulation.contract
        self._past: deque[GroundTruth] = deque(maxlen=self._depth())

    def start_episode(self, scene: GroundTruth) -> None:
        """Drop the history and start with ``scene``; the robot counts as at rest before it."""
        self._past.clear()
        self._past.append(scene)

    def update(self, now: GroundTruth) -> None:
        """Append the state after a control period."""
        self._past.append(now)

    def snapshot(self, tick_ns: int, prompt: str) -> Observation:
        """Return the current observation, with the history of arm states before ``tick_ns`` [ns]."""
        with self._stopwatch.measure('rendering'):
            views = tuple(self._view(name) for name in self._contract.cameras)
        history = tuple(self._states(tick_ns - step * self._contract.step_ns)
                        for step in reversed(range(self._contract.history)))
        return Observation(stamp_ns=tick_ns, prompt=prompt, views=views, history=history)

    def ages(self, tick_ns: int) -> Sequence[StreamReport]:
        """Return an empty report: simulated streams are never late."""
        return ()

    def arm_states(self, stamp_ns: int) -> tuple[ArmState, ...]:
        """Return the state of every arm at a time [ns]."""
        return self._states(stamp_ns)

    def clear(self) -> None:
        """Keep the history: simulated streams have no faults to recover from."""

    def _view(self, name: str) -> View:
        image = self._rig.render(name)
        boxed = letterbox(image.rgb, intrinsics(self._simulation, name), self._contract.image_size)
        return View(rgb=boxed.rgb, mask=boxed.mask, intrinsics=boxed.intrinsics,
                    world_from_camera=image.world_from_camera, stamp_ns=image.stamp_ns)

    def _states(self, stamp_ns: int) -> tuple[ArmState, ...]:
        known = [then for then in self._past if then.stamp_ns <= stamp_ns]
        then = known[-1] if known else self._past[0]
        return tuple(then.arms[name] for name in self._contract.arms)

    def _depth(self) -> int:
        contract = self._contract
        return 2 + round((contract.history - 1) * contract.step_s * contract.control_rate_hz)


class SynchronousWorker:
    """Worker that runs the planner inside :meth:`submit`; the plan is available at once or after a fixed delay."""

    def __init__(self, planner: Planner, clock: Clock, *, delay_s: float, stopwatch: Stopwatch) -> None:
        """Start idle.

        Args:
            planner: planner to run; the caller closes it.
            clock: simulated time.
            delay_s: time from an observation to its plan on that clock [s].
            stopwatch: measures the time of inference.
        """
        self._planner, self._clock, self._stopwatch = planner, clock, stopwatch
        self._delay_ns = round(delay_s * 1e9)
        self._ready: tuple[int, PlannedChunk | PlanFailure] | None = None

    @property
    def state(self) -> WorkerState:
        """State of the worker; busy until the plan has been fetched."""
        return WorkerState.IDLE if self._ready is None else WorkerState.BUSY

    def warm_up(self) -> None:
        """Warm up the planner and reset its noise, so that rollouts do not depend on earlier ones."""
        self._ready = None
        self._planner.warm_up()

    def submit(self, request: PlanRequest) -> None:
        """Plan now; the result can be fetched when the delay has passed."""
        with self._stopwatch.measure('inference'):
            outcome = run_plan(self._planner, request)
        self._ready = (self._clock.now_ns() + self._delay_ns, outcome)

    def poll(self) -> PlannedChunk | PlanFailure | None:
        """Return the result once it is due, else None."""
        if self._ready is None or self._clock.now_ns() < self._ready[0]:
            return None
        outcome, self._ready = self._ready[1], None
        return outcome

    def close(self, timeout_s: float = 2.0) -> None:
        """Drop the pending result."""
        self._ready = None
