"""Checks between a planner's chunk and the arms: chunk form, stream age, enable interlock, target limits.

Each check returns a hold with its reason, or None. The safety limits themselves are in ``core.safety``. The classes are
not thread-safe; the loop's lock guards them.
"""

from collections.abc import Iterable

import numpy as np

from apt_policy.core.geometry import is_rigid
from apt_policy.core.safety import Clamp, SafetyFilter
from apt_policy.core.sample import ArmState, Hold, HoldReason, Target
from apt_policy.core.streams import StreamReport
from apt_policy.inference.ports import PlannedChunk
from apt_policy.inference.trajectory import Poses


def validate_chunk(planned: PlannedChunk) -> Hold | None:
    """Check shapes, finiteness and rotations of a planner's chunk.

    Returns:
        None for a chunk that can be executed, else the hold; the chunk must then be discarded.
    """
    chunk, arms = planned.chunk, planned.request.observation.arms
    rows, count = len(chunk.gripper), len(arms)
    got = (chunk.world_from_ee.shape, chunk.gripper.shape, chunk.valid_arms.shape)
    if rows == 0 or got != ((rows, count, 4, 4), (rows, count), (count,)) or chunk.step_ns <= 0:
        return _failed('the planner returned poses {}, grippers {}, arms {}'.format(*got)
                       + f' and a step of {chunk.step_ns} ns; expected (T, {count}, 4, 4), (T, {count}), '
                       f'({count},) and a step above 0')
    absent = [index for index, arm in enumerate(arms) if arm is None and chunk.valid_arms[index]]
    if absent:
        return _failed(f'the planner moves arm {absent[0]}, which was absent from its observation')
    poses = chunk.world_from_ee[:, chunk.valid_arms]
    if not (np.isfinite(poses).all() and np.isfinite(chunk.gripper[:, chunk.valid_arms]).all()):
        return Hold(reason=HoldReason.NON_FINITE, detail='the planner returned a chunk with NaN or infinity')
    if not is_rigid(poses):
        return _failed('the planner returned a matrix that is not a rigid pose')
    return None


def first_stale_stream(reports: Iterable[StreamReport]) -> Hold | None:
    """Find the first stream without data or with data older than its limit; no image is decoded.

    Returns:
        None if all streams are recent enough to move.
    """
    for report in reports:
        if report.age_s < 0:
            return Hold(reason=HoldReason.MISSING_STREAM, detail=f'no data received from {report.stream} yet',
                        stream=report.stream)
        if report.age_s > report.max_age_s:
            return Hold(reason=HoldReason.STALE_STREAM, stream=report.stream,
                        detail=f'{report.stream} is {report.age_s:.3f} s old (limit {report.max_age_s:g} s)')
    return None


class EnableInterlock:
    """Interlock of lifecycle state, enable flag, dead-man switch and latched fault; starts inactive and disabled.

    The first fault stays latched until an operator re-enables or resets.
    """

    def __init__(self, *, dead_man_timeout_s: float | None) -> None:
        """Start inactive and disabled.

        Args:
            dead_man_timeout_s: time for which one dead-man message is valid [s]; None uses no switch.
        """
        self.active = False
        self.enabled = False
        self.fault: Hold | None = None
        self.second_publishers: tuple[str, ...] = ()
        self._timeout_s = dead_man_timeout_s
        self._pressed_ns: int | None = None

    def latch(self, reason: HoldReason, detail: str) -> bool:
        """Record a fault; return False if an earlier one is already latched, which stays."""
        if self.fault is not None:
            return False
        self.fault = Hold(reason=reason, detail=detail)
        return True

    def record_dead_man(self, pressed: bool, steady_ns: int) -> None:
        """Record a message of the dead-man switch, received at ``steady_ns``."""
        self._pressed_ns = steady_ns if pressed else None

    def blocking_hold(self, steady_ns: int) -> Hold | None:
        """Return the hold that blocks motion at ``steady_ns``, None if the arms may move."""
        if not self.active:
            return Hold(reason=HoldReason.INACTIVE, detail='the node is not active')
        if self.fault is not None:
            return self.fault
        if not self.enabled:
            return Hold(reason=HoldReason.DISABLED, detail='call ~/enable to let the arms move')
        if self.second_publishers:
            return self.second_publisher_hold()
        return self._dead_man_hold(steady_ns)

    def second_publisher_hold(self) -> Hold:
        """Return the hold caused by :attr:`second_publishers`."""
        return Hold(reason=HoldReason.SECOND_PUBLISHER,
                    detail=f'another node also publishes {", ".join(self.second_publishers)}')

    def _dead_man_hold(self, steady_ns: int) -> Hold | None:
        if self._timeout_s is None:
            return None
        if self._pressed_ns is None:
            return Hold(reason=HoldReason.DEAD_MAN, detail='the dead-man switch is not pressed')
        if (steady_ns - self._pressed_ns) / 1e9 > self._timeout_s:
            return Hold(reason=HoldReason.DEAD_MAN,
                        detail=f'the dead-man switch has been silent for more than {self._timeout_s:g} s')
        return None


class TargetGuard:
    """Safety filter over all arms at once: a hold of one arm holds all of them."""

    def __init__(self, safety: SafetyFilter, arms: tuple[str, ...]) -> None:
        """Guard ``arms``, given in the contract's order."""
        self._safety = safety
        self._arms = arms
        self._executed: Target | None = None
        self.clamped_ticks = 0
        """Number of targets that the filter limited."""

    def recheck(self) -> None:
        """Treat the next target as a first one, because the arms may have been moved by other means."""
        self._safety.recheck()

    def filter_target(self, target: Target, measured: tuple[ArmState, ...]) -> Target | Hold:
        """Limit ``target`` and record it as executed.

        Args:
            target: wanted target of all arms.
            measured: present state of every arm, for a first target.

        Returns:
            The target to publish, or the hold of the first arm that refuses it; nothing is recorded then.
        """
        safe = {}
        for index in np.flatnonzero(target.valid_arms):
            checked = self._safety.check(
                self._arms[index], target.world_from_ee[index], target.gripper[index],
                measured=measured[index], now_ns=target.due_ns)
            if isinstance(checked, Hold):
                return checked
            safe[index] = checked
        poses, gripper = target.world_from_ee.copy(), target.gripper.copy()
        for index, checked in safe.items():
            poses[index], gripper[index] = checked.world_from_ee, checked.gripper
            self._safety.executed(self._arms[index], checked, target.due_ns)
        self.clamped_ticks += any(checked.clamps is not Clamp.NONE for checked in safe.values())
        self._executed = Target(due_ns=target.due_ns, world_from_ee=poses, gripper=gripper,
                                valid_arms=target.valid_arms, epoch=target.epoch)
        return self._executed

    def start_poses(self, measured: tuple[ArmState, ...], now_ns: int) -> Poses:
        """Return the poses that a motion starts from (N = 1).

        That is an arm's last command if the arm is still there, else its measured pose: an arm that is sent to its own
        measured pose sinks by its control error.
        """
        arms: list[ArmState | None] = list(measured)
        last = self._executed
        if last is None:
            return Poses.from_arm_states(arms)
        for index in np.flatnonzero(last.valid_arms):
            checked = self._safety.check(self._arms[index], last.world_from_ee[index], last.gripper[index],
                                         measured=measured[index], now_ns=now_ns)
            if not isinstance(checked, Hold):
                arms[index] = ArmState(world_from_ee=last.world_from_ee[index],
                                       gripper=float(last.gripper[index]))
        return Poses.from_arm_states(arms)


def _failed(detail: str) -> Hold:
    return Hold(reason=HoldReason.INFERENCE_FAILED, detail=detail)
