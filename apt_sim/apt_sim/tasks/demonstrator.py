"""A scripted demonstrator: sees the true situation, says what both arms shall do in this control period.

Knows neither where the situation comes from nor who follows the targets, so it serves the live robot and
simulation faster than real time alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import RobotContract
from apt_policy.core.geometry import PosePath, angle_between
from apt_policy.core.sample import ArmState, Target
from apt_sim.tasks.script import Script, Scripts, Step
from apt_sim.tasks.task import Situation, Task

# Peak speed over mean speed of the profile 3 s^2 - 2 s^3.
_PEAK = 1.5
# A step has come to its end when the hand is so near, or after this long.
_ARRIVED_M, _ARRIVED_RAD = 0.004, 0.05
_SETTLE_NS = 600_000_000
_GRIP_S = 0.5
# The longest that one step of the motion may be, in control periods.
_HICCUP_PERIODS = 1.5


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast hands move, as shares of what the contract's safety limits allow."""

    slowest: float = 0.75
    fastest: float = 0.95
    """Each demonstration draws its speed between the two."""
    linear_speed: float = 0.25
    """[m/s] where the contract sets no limit."""
    angular_speed: float = 1.5
    """[rad/s], likewise."""


class Demonstrator:
    """One demonstration of one task."""

    def __init__(self, contract: RobotContract, task: Task, scene: Situation, *,
                 random: np.random.Generator, epoch: int = 0, pace: Pace | None = None) -> None:
        """
        Args:
            scene: where everything is at the beginning.
            random: of speed and heights; the same seed gives the same demonstration.
            epoch: identity of this demonstration in its targets.
        """
        pace = pace or Pace()
        limits = contract.safety
        speed = float(random.uniform(pace.slowest, pace.fastest))
        self._linear = speed * (limits.linear_speed or pace.linear_speed)
        self._angular = speed * (limits.angular_speed or pace.angular_speed)
        self._arms = tuple(contract.arms)
        self._period_ns = round(1e9 / contract.control_rate_hz)
        self._epoch = epoch
        self._told: dict[str, ArmState] = dict(scene.arms)
        self._script: Script = Scripts(contract, random).of(task, scene)
        self._motion: _Motion | None = None
        self._begun = False
        self._clock_ns = 0
        self._seen_ns: int | None = None
        self.done = False
        """Whether the script is at its end; targets then keep both hands where they are."""

    @property
    def label(self) -> str:
        """What is being done, for logs."""
        return self._motion.step.label if self._motion else ''

    def step(self, now: Situation) -> Target:
        """What both arms shall do in the coming control period."""
        if self._seen_ns is not None:
            # After a hiccup the motion goes on where it was: a target that leaps shakes loose what the hand holds.
            self._clock_ns += min(now.stamp_ns - self._seen_ns, round(_HICCUP_PERIODS * self._period_ns))
        self._seen_ns = now.stamp_ns
        if self._motion is None or self._motion.over(self._clock_ns, now.arms):
            self._advance(now)
        if self._motion is not None and not self.done:
            self._told[self._motion.step.arm] = self._motion.at(self._clock_ns)
        return Target(
            due_ns=now.stamp_ns + self._period_ns, epoch=self._epoch,
            world_from_ee=np.stack([self._told[arm].world_from_ee for arm in self._arms]),
            gripper=np.array([self._told[arm].gripper for arm in self._arms]),
            valid_arms=np.ones(len(self._arms), bool))

    def _advance(self, now: Situation) -> None:
        try:
            step = self._script.send(now) if self._begun else next(self._script)
        except StopIteration:
            self.done = True
            return
        self._begun = True
        start = self._told[step.arm]
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
    """A step in time, on the motion's own clock: first the way, then the fingers."""

    step: Step
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

    def at(self, now_ns: int) -> ArmState:
        """Where the hand shall be."""
        elapsed_s = (now_ns - self.begun_ns) / 1e9
        share = min(1.0, elapsed_s / self.travel_s) if self.travel_s > 0.0 else 1.0
        pose = self._goal if share == 1.0 else self._path.interpolate(share * share * (3.0 - 2.0 * share))
        gripper = self.start.gripper
        if self.step.gripper is not None and self._fingers_move(elapsed_s):
            gripper = self.step.gripper
        return ArmState(world_from_ee=pose, gripper=gripper)

    def over(self, now_ns: int, arms: Mapping[str, ArmState]) -> bool:
        """Whether the hand has arrived, and the fingers have had their time."""
        elapsed_ns = now_ns - self.begun_ns
        end_ns = round((self.travel_s + (_GRIP_S if self._grips else 0.0)) * 1e9)
        if elapsed_ns < end_ns:
            return False
        return elapsed_ns >= end_ns + _SETTLE_NS or self._arrived(arms)

    @property
    def _grips(self) -> bool:
        return self.step.gripper is not None and self.step.gripper != self.start.gripper

    def _fingers_move(self, elapsed_s: float) -> bool:
        # Opening on the way costs nothing; closing or letting go must wait for the place.
        return elapsed_s >= self.travel_s

    def _arrived(self, arms: Mapping[str, ArmState]) -> bool:
        goal, pose = self.step.world_from_ee, arms[self.step.arm].world_from_ee
        return goal is None or bool(
            np.linalg.norm(pose[:3, 3] - goal[:3, 3]) < _ARRIVED_M
            and angle_between(pose[:3, :3], goal[:3, :3]) < _ARRIVED_RAD)
