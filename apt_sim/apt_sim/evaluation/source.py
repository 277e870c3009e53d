"""The simulated robot as the policy loop's source of observations.

Takes pictures when the loop asks, so nothing is rendered that no plan is made from. Implements
:class:`apt_policy.inference.ports.ObservationSource`.
"""

from collections import deque
from collections.abc import Sequence

from apt_policy.core.contract import RobotContract
from apt_policy.core.images import letterbox
from apt_policy.core.sample import ArmState, Observation, View
from apt_policy.core.streams import StreamReport
from apt_sim.evaluation.stopwatch import Stopwatch
from apt_sim.tasks.task import Situation
from apt_sim.world.cameras import CameraRig, intrinsics
from apt_sim.world.physics import Simulation


class SimulatedRobot:
    """What the robot says at the present instant of its simulation; asked about another, it answers the same."""

    def __init__(self, simulation: Simulation, rig: CameraRig, stopwatch: Stopwatch) -> None:
        """``stopwatch`` is told how long the pictures took."""
        self._simulation, self._rig, self._stopwatch = simulation, rig, stopwatch
        self._contract: RobotContract = simulation.contract
        self._past: deque[Situation] = deque(maxlen=self._depth())

    def begin(self, scene: Situation) -> None:
        """An episode begins; before it, everything stood still."""
        self._past.clear()
        self._past.append(scene)

    def see(self, now: Situation) -> None:
        """A control period has passed."""
        self._past.append(now)

    def snapshot(self, tick_ns: int, prompt: str) -> Observation:
        """Everything now."""
        with self._stopwatch.on('rendering'):
            views = tuple(self._view(name) for name in self._contract.cameras)
        history = tuple(self._states(tick_ns - step * self._contract.step_ns)
                        for step in reversed(range(self._contract.history)))
        return Observation(stamp_ns=tick_ns, prompt=prompt, views=views, history=history)

    def ages(self, tick_ns: int) -> Sequence[StreamReport]:
        """No stream is ever late."""
        return ()

    def arm_states(self, stamp_ns: int) -> tuple[ArmState, ...]:
        """Where every arm is."""
        return self._states(stamp_ns)

    def clear(self) -> None:
        """Nothing that was received can be wrong."""

    def _view(self, name: str) -> View:
        shot = self._rig.shoot(name)
        seen = letterbox(shot.rgb, intrinsics(self._simulation, name), self._contract.image_size)
        return View(rgb=seen.rgb, mask=seen.mask, intrinsics=seen.intrinsics,
                    world_from_camera=shot.world_from_camera, stamp_ns=shot.stamp_ns)

    def _states(self, stamp_ns: int) -> tuple[ArmState, ...]:
        known = [then for then in self._past if then.stamp_ns <= stamp_ns]
        then = known[-1] if known else self._past[0]
        return tuple(then.arms[name] for name in self._contract.arms)

    def _depth(self) -> int:
        contract = self._contract
        return 2 + round((contract.history - 1) * contract.step_s * contract.control_rate_hz)
