"""The safety filter over all arms at once: one arm that must hold makes all of them hold.

It also says where a motion begins after a time without targets. It knows no plans, and no
limits of its own: those are ``core.safety``'s.
"""

import numpy as np

from apt_policy.core.safety import Clamp, SafetyFilter
from apt_policy.core.sample import ArmState, Hold, Target
from apt_policy.inference.trajectory import Poses


class Guard:
    """Not thread-safe; the loop's lock guards it."""

    def __init__(self, safety: SafetyFilter, arms: tuple[str, ...]) -> None:
        """``arms`` in the contract's order."""
        self._safety = safety
        self._arms = arms
        self._executed: Target | None = None
        self.clamped_ticks = 0
        """Targets that had to be limited."""

    def recheck(self) -> None:
        """The arms may have been moved by others: the next target is a first one again."""
        self._safety.recheck()

    def passed(self, target: Target, measured: tuple[ArmState, ...]) -> Target | Hold:
        """The target that goes out, counted as executed; or why none may, and nothing is counted."""
        safe = {}
        for index in np.flatnonzero(target.valid_arms):
            verdict = self._safety.check(
                self._arms[index], target.world_from_ee[index], target.gripper[index],
                measured=measured[index], now_ns=target.due_ns)
            if isinstance(verdict, Hold):
                return verdict
            safe[index] = verdict
        poses, gripper = target.world_from_ee.copy(), target.gripper.copy()
        for index, verdict in safe.items():
            poses[index], gripper[index] = verdict.world_from_ee, verdict.gripper
            self._safety.executed(self._arms[index], verdict, target.due_ns)
        self.clamped_ticks += any(verdict.clamps is not Clamp.NONE for verdict in safe.values())
        self._executed = Target(due_ns=target.due_ns, world_from_ee=poses, gripper=gripper,
                                valid_arms=target.valid_arms, epoch=target.epoch)
        return self._executed

    def origin(self, measured: tuple[ArmState, ...], now_ns: int) -> Poses:
        """Where a motion begins: at an arm's last command if the arm is still there, else where it is.

        An arm that is sent to its own measured pose sinks by its control error.
        """
        arms: list[ArmState | None] = list(measured)
        last = self._executed
        if last is None:
            return Poses.of_arms(arms)
        for index in np.flatnonzero(last.valid_arms):
            verdict = self._safety.check(self._arms[index], last.world_from_ee[index], last.gripper[index],
                                         measured=measured[index], now_ns=now_ns)
            if not isinstance(verdict, Hold):
                arms[index] = ArmState(world_from_ee=last.world_from_ee[index],
                                       gripper=float(last.gripper[index]))
        return Poses.of_arms(arms)
