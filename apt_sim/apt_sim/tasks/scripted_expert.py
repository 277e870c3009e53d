"""Scripted expert: from the ground truth to the target of both arms in each control period.

Independent of where the ground truth comes from and of who executes the targets, it serves the live node and
simulation faster than real time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import RobotContract
from apt_policy.core.geometry import PosePath, angle_between
from apt_policy.core.sample import ArmState, Target
from apt_sim.tasks.skill_scripts import SkillScripts, Waypoint, WaypointScript
from apt_sim.tasks.task import GroundTruth, Task

# Peak speed over mean speed of the profile 3 s^2 - 2 s^3.
_PEAK = 1.5
# A waypoint is reached when the hand is this near [m, rad], or after the settle time.
_ARRIVED_M, _ARRIVED_RAD = 0.004, 0.05
_SETTLE_NS = 600_000_000
# Time for the fingers to open or close [s].
_GRIP_S = 0.5
# Largest step of the motion's clock, in control periods.
_MAX_STEP_PERIODS = 1.5


@dataclass(frozen=True, kw_only=True)
class HandSpeedConfig:
    """Speed of the hands relative to the contract's safety limits, sampled per demonstration."""

    slowest: float = 0.75
    """Lower bound of the sampled share."""
    fastest: float = 0.95
    """Upper bound of the sampled share."""
    linear_speed: float = 0.25
    """Linear speed limit where the contract sets none [m/s]."""
    angular_speed: float = 1.5
    """Angular speed limit where the contract sets none [rad/s]."""


class ScriptedExpert:
    """Scripted demonstration of one task."""

    def __init__(self, contract: RobotContract, task: Task, scene: GroundTruth, *,
                 random: np.random.Generator, epoch: int = 0, speed_config: HandSpeedConfig | None = None) -> None:
        """Prepare the waypoints of ``task``.

        Args:
            contract: description of the robot.
            task: task to demonstrate.
            scene: ground truth at the beginning.
            random: generator of speed and heights; the same seed gives the same demonstration.
            epoch: identity of this demonstration in its targets.
            speed_config: speed of the hands; None takes the defaults.
        """
        speed_config = speed_config or HandSpeedConfig()
        limits = contract.safety
        speed = float(random.uniform(speed_config.slowest, speed_config.fastest))
        self._linear = speed * (limits.linear_speed or speed_config.linear_speed)
        self._angular = speed * (limits.angular_speed or speed_config.angular_speed)
        self._arms = tuple(contract.arms)
        self._period_ns = round(1e9 / contract.control_rate_hz)
        self._epoch = epoch
        self._last_targets: dict[str, ArmState] = dict(scene.arms)
        self._script: WaypointScript = SkillScripts(contract, random).waypoints(task, scene)
        self._motion: _Motion | None = None
        self._begun = False
        self._clock_ns = 0
        self._previous_ns: int | None = None
        self.done = False
        """True if the script has ended; further targets hold both hands in place."""

    @property
    def label(self) -> str:
        """Description of the current waypoint, for logs."""
        return self._motion.step.label if self._motion else ''

    def step(self, now: GroundTruth) -> Target:
        """Return the target of both arms for the next control period.

        Args:
            now: current ground truth.
        """
        if self._previous_ns is not None:
            # After a scheduling delay the motion continues where it was: a jump of the target would shake loose the
            # held object.
            self._clock_ns += min(now.stamp_ns - self._previous_ns, round(_MAX_STEP_PERIODS * self._period_ns))
        self._previous_ns = now.stamp_ns
        if self._motion is None or self._motion.is_over(self._clock_ns, now.arms):
            self._advance(now)
        if self._motion is not None and not self.done:
            self._last_targets[self._motion.step.arm] = self._motion.state_at(self._clock_ns)
        return Target(
            due_ns=now.stamp_ns + self._period_ns, epoch=self._epoch,
            world_from_ee=np.stack([self._last_targets[arm].world_from_ee for arm in self._arms]),
            gripper=np.array([self._last_targets[arm].gripper for arm in self._arms]),
            valid_arms=np.ones(len(self._arms), bool))

    def _advance(self, now: GroundTruth) -> None:
        try:
            step = self._script.send(now) if self._begun else next(self._script)
        except StopIteration:
            self.done = True
            return
        self._begun = True
        start = self._last_targets[step.arm]
        self._motion = _Motion(step=step, start=start, begun_ns=self._clock_ns,
                               travel_s=self._travel_s(start.world_from_ee, step.world_from_ee))

    def _travel_s(self, start: NDArray[np.float64], goal: NDArray[np.float64] | None) -> float:
        if goal is None:
            return 0.0
        distance = float(np.linalg.norm(goal[:3, 3] - start[:3, 3]))
        angle = float(angle_between(start[:3, :3], goal[:3, :3]))
        return _PEAK * max(distance / self._linear, angle / self._angular)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Motion:
    """Timed motion to a waypoint on the expert's own clock: first the hand, then the fingers."""

    step: Waypoint
    start: ArmState
    begun_ns: int
    travel_s: float

    @property
    def _goal(self) -> NDArray[np.float64]:
        goal = self.step.world_from_ee
        return self.start.world_from_ee if goal is None else goal

    @cached_property
    def _path(self) -> PosePath:
        return PosePath(self.start.world_from_ee, self._goal)

    def state_at(self, now_ns: int) -> ArmState:
        """Return the desired state of the arm at a time of the expert's clock [ns]."""
        elapsed_s = (now_ns - self.begun_ns) / 1e9
        share = min(1.0, elapsed_s / self.travel_s) if self.travel_s > 0.0 else 1.0
        pose = self._goal if share == 1.0 else self._path.interpolate(share * share * (3.0 - 2.0 * share))
        gripper = self.start.gripper
        if self.step.gripper is not None and self._fingers_move(elapsed_s):
            gripper = self.step.gripper
        return ArmState(world_from_ee=pose, gripper=gripper)

    def is_over(self, now_ns: int, arms: Mapping[str, ArmState]) -> bool:
        """Return whether the hand has arrived and the fingers have moved."""
        elapsed_ns = now_ns - self.begun_ns
        end_ns = round((self.travel_s + (_GRIP_S if self._grips else 0.0)) * 1e9)
        if elapsed_ns < end_ns:
            return False
        return elapsed_ns >= end_ns + _SETTLE_NS or self._arrived(arms)

    @property
    def _grips(self) -> bool:
        return self.step.gripper is not None and self.step.gripper != self.start.gripper

    def _fingers_move(self, elapsed_s: float) -> bool:
        # The fingers move only when the hand is at its waypoint.
        return elapsed_s >= self.travel_s

    def _arrived(self, arms: Mapping[str, ArmState]) -> bool:
        goal, pose = self.step.world_from_ee, arms[self.step.arm].world_from_ee
        return goal is None or bool(
            np.linalg.norm(pose[:3, 3] - goal[:3, 3]) < _ARRIVED_M
            and angle_between(pose[:3, :3], goal[:3, :3]) < _ARRIVED_RAD)
