"""Perturbations of demonstrations, so that the data shows how to recover.

Action noise pushes the hand off its path while the labels stay on it (DART, Laskey et al. 2017). Recovery
demonstrations begin with the hand beside the object: some hands have closed there on nothing, others are still moving
down with open fingers. The motion into the mistake is not recorded; the recorded demonstration begins at its end.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import RobotContract
from apt_policy.core.geometry import make_pose
from apt_policy.core.sample import ArmState, Target
from apt_sim.tasks.episode import LONGEST_S
from apt_sim.tasks.grasp import GraspGeometry
from apt_sim.tasks.scripted_expert import ScriptedExpert
from apt_sim.tasks.task import GroundTruth, Skill, Task

# Time constants of the noise [s]: it decays to zero within the first and is smoothed over the second, so that a hand
# drifts and does not tremble.
_RELAXATION_S, _SMOOTHING_S = 0.6, 0.25
# Share of the noise that is left where fingers are at an object; more would make most grasps fail.
_LEAST_SHARE = 0.15
# Heights of the hand between which the noise grows to its full size [m].
_LOW, _HIGH = 0.06, 0.13
# Distance from its start below which an arm counts as at rest and gets no noise [m].
_MOVED = 0.01

# Offset of the perceived object from its true position [m]: from where the fingers just miss it to more than its width.
_OFFSET_M = (0.02, 0.055)
# Time from the command to close to the beginning of the recording, during which the hand stays in place [s].
_SINCE_CLOSING_S = (0.9, 1.8)
# Opening above which a closed hand has an object between its fingers.
_EMPTY = 0.3
_HALF_OPEN = 0.5
# For a hand that stays open: height above a grasp at which the mistake is noticed, and distance to its goal [m].
_ABOVE_M, _NEAR_M = (0.0, 0.1), 0.01


class ActionNoise:
    """Correlated noise on the commanded positions: a random walk that decays to zero, smaller near the table."""

    def __init__(self, size: float, period_s: float, start: tuple[ArmState, ...], random: np.random.Generator) -> None:
        """Start without an offset.

        Args:
            size: standard deviation of the noise far above the table [m]; 0 disables it.
            period_s: time between two targets [s].
            start: initial state of each arm; an arm that is still there gets no noise.
            random: generator of the noise.
        """
        self._size, self._random = size, random
        self._decay = float(np.exp(-period_s / _RELAXATION_S))
        self._follow = 1.0 - float(np.exp(-period_s / _SMOOTHING_S))
        self._start = np.stack([arm.world_from_ee[:3, 3] for arm in start])
        self._pull = np.zeros((len(start), 3))
        self._offsets = np.zeros_like(self._pull)

    def apply(self, target: Target) -> Target:
        """Return the target to execute instead of ``target``."""
        if not self._size:
            return target
        kick = self._size * np.sqrt(1.0 - self._decay**2)
        self._pull = self._decay * self._pull + kick * self._random.standard_normal(self._pull.shape)
        self._offsets = self._offsets + self._follow * (self._pull - self._offsets)
        poses = np.stack([self._moved(pose, start, offset) for pose, start, offset in
                          zip(target.world_from_ee, self._start, self._offsets, strict=True)])
        return Target(due_ns=target.due_ns, world_from_ee=poses, gripper=target.gripper,
                      valid_arms=target.valid_arms, epoch=target.epoch)

    def _moved(self, pose: NDArray[np.float64], start: NDArray[np.float64],
               offset: NDArray[np.float64]) -> NDArray[np.float64]:
        if np.linalg.norm(pose[:3, 3] - start) < _MOVED:
            return pose
        height = np.clip((pose[2, 3] - _LOW) / (_HIGH - _LOW), 0.0, 1.0)
        return make_pose(pose[:3, :3], pose[:3, 3] + (_LEAST_SHARE + (1 - _LEAST_SHARE) * height) * offset)


class RecoveryStart(Enum):
    """State of the hand beside the object in which a recovery demonstration begins."""

    CLOSED = 'closed'
    """Closed on nothing."""
    OPEN = 'open'
    """Open, on its way down."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _MisplacedGrasp:
    """Grasp at a wrong position, and the moment at which the mistake is noticed."""

    task: Task
    offset: NDArray[np.float64]
    """(3,) from the true to the perceived position of the object [m]."""
    open_below: float
    """Height of the hand below which the mistake is noticed before the fingers close [m]; 0 disables that."""
    wait_s: float
    """Time from the command to close until the mistake is noticed [s]."""

    def perceived(self, now: GroundTruth) -> GroundTruth:
        """Return the ground truth with the object at its perceived position."""
        pose = now.objects[self.task.object].copy()
        pose[:3, 3] += self.offset
        return replace(now, objects={**now.objects, self.task.object: pose})

    def is_noticed(self, now: GroundTruth) -> bool:
        """Return whether the mistake is noticed before the fingers close."""
        hand = now.arms[self.task.arm].world_from_ee[:3, 3]
        wrong = now.objects[self.task.object][:3, 3] + self.offset
        return bool(hand[2] <= self.open_below and np.linalg.norm(hand[:2] - wrong[:2]) < _NEAR_M)


def has_recovery(skill: Skill) -> bool:
    """Return whether a skill has a grasp that can miss."""
    return skill is not Skill.PUSH


def sample_recovery_start(share: float, random: np.random.Generator) -> RecoveryStart | None:
    """Sample how an episode begins.

    Args:
        share: probability of a recovery demonstration, 0..1; both kinds are equally likely.
        random: generator to sample from.

    Returns:
        The start of a recovery demonstration, or None for a normal one.
    """
    if random.random() >= share:
        return None
    return list(RecoveryStart)[random.integers(len(RecoveryStart))]


def move_to_recovery_start(contract: RobotContract, task: Task, scene: GroundTruth, kind: RecoveryStart,
                           step: Callable[[Target], GroundTruth], random: np.random.Generator) -> GroundTruth | None:
    """Demonstrate ``task`` with the object perceived beside its position until the mistake is noticed.

    Args:
        contract: description of the robot.
        task: task with a grasp.
        scene: ground truth at the beginning.
        kind: state of the hand to reach.
        step: executes a target for one control period and returns the ground truth after it.
        random: generator of the offset and of the time until the mistake is noticed.

    Returns:
        The ground truth at the end; None if the hand holds an object after all, or never reaches a grasp.
    """
    misplaced, arm = _sample_misplaced(contract, task, kind, random), list(contract.arms).index(task.arm)
    expert = ScriptedExpert(contract, task, misplaced.perceived(scene), random=random)
    now = scene
    target = expert.step(misplaced.perceived(now))
    while not target.gripper[arm] < _HALF_OPEN <= now.arms[task.arm].gripper:
        if now.stamp_ns - scene.stamp_ns > LONGEST_S * 1e9:
            return None
        now = step(target)
        if misplaced.is_noticed(now):
            return now
        target = expert.step(misplaced.perceived(now))
    closing_ns = now.stamp_ns
    while now.stamp_ns - closing_ns < misplaced.wait_s * 1e9:
        now = step(target)
    return now if now.arms[task.arm].gripper < _EMPTY else None


def _sample_misplaced(contract: RobotContract, task: Task, kind: RecoveryStart,
                      random: np.random.Generator) -> _MisplacedGrasp:
    angle, distance = random.uniform(0.0, 2.0 * np.pi), random.uniform(*_OFFSET_M)
    above = random.uniform(*_ABOVE_M)
    return _MisplacedGrasp(
        task=task, offset=distance * np.array([np.cos(angle), np.sin(angle), 0.0]),
        open_below=0.0 if kind is RecoveryStart.CLOSED else GraspGeometry(contract, task.arm).grasp_height + above,
        wait_s=random.uniform(*_SINCE_CLOSING_S))
