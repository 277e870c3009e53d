"""Lets a hand go to a place beside the thing before the recording begins, so that the data shows how to put that right.

Some hands close there, on nothing; others are on their way down with open fingers. What a learner would see of the
mistake itself is not worth learning; what comes after it is. Nothing of this is recorded: a demonstration begins
where it ends.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import RobotContract
from apt_policy.core.sample import Target
from apt_sim.tasks.demonstrator import Demonstrator
from apt_sim.tasks.episode import LONGEST_S
from apt_sim.tasks.grasp import GraspGeometry
from apt_sim.tasks.task import Situation, Skill, Task

# How far beside its true place the thing is taken to be [m]: from where fingers just miss it to more than its width.
_ASIDE = (0.02, 0.055)
# From the command to close to the beginning of the recording, while the hand stays where it is [s].
_SINCE_CLOSING_S = (0.9, 1.8)
# A hand that is open wider has something between its fingers.
_EMPTY = 0.3
_HALF_OPEN = 0.5
# Of a hand that stays open: how far above the height of a grasp it is seen at last, and how near to its wrong place.
_ABOVE, _THERE = (0.0, 0.1), 0.01


class Stumble(Enum):
    """How a hand is found beside the thing."""

    CLOSED = 'closed'
    """On nothing."""
    OPEN = 'open'
    """On its way down."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Mistake:
    """What is wrong, and when it is found out."""

    task: Task
    aside: NDArray[np.float64]
    """(3,) from where the object is to where it is taken to be [m]."""
    open_below: float
    """Height of the hand at which it is found out before the fingers close [m]; 0: not before."""
    wait_s: float
    """From the command to close until it is found out [s]."""

    def taken(self, now: Situation) -> Situation:
        """The situation as it is taken to be."""
        pose = now.objects[self.task.object].copy()
        pose[:3, 3] += self.aside
        return replace(now, objects={**now.objects, self.task.object: pose})

    def noticed(self, now: Situation) -> bool:
        """Whether it is found out before the fingers close."""
        hand = now.arms[self.task.arm].world_from_ee[:3, 3]
        wrong = now.objects[self.task.object][:3, 3] + self.aside
        return bool(hand[2] <= self.open_below and np.linalg.norm(hand[:2] - wrong[:2]) < _THERE)


def stumbles(skill: Skill) -> bool:
    """Whether a skill has a grasp that can miss."""
    return skill is not Skill.PUSH


def draw_stumble(share: float, random: np.random.Generator) -> Stumble | None:
    """A share of all, 0..1, stumbles: both kinds alike often. None for the rest."""
    if random.random() >= share:
        return None
    return list(Stumble)[random.integers(len(Stumble))]


def stumble(contract: RobotContract, task: Task, scene: Situation, kind: Stumble,
            follow: Callable[[Target], Situation], random: np.random.Generator) -> Situation | None:
    """Demonstrate ``task`` as if its object lay beside its place, until that is found out.

    Args:
        follow: executes one control period.
        random: of where the object is taken to be, and of how long that lasts.

    Returns:
        Where everything is then; None if the hand holds something after all, or never came to a grasp.
    """
    mistake, arm = _draw(contract, task, kind, random), list(contract.arms).index(task.arm)
    demonstrator = Demonstrator(contract, task, mistake.taken(scene), random=random)
    now = scene
    target = demonstrator.step(mistake.taken(now))
    while not target.gripper[arm] < _HALF_OPEN <= now.arms[task.arm].gripper:
        if now.stamp_ns - scene.stamp_ns > LONGEST_S * 1e9:
            return None
        now = follow(target)
        if mistake.noticed(now):
            return now
        target = demonstrator.step(mistake.taken(now))
    closing_ns = now.stamp_ns
    while now.stamp_ns - closing_ns < mistake.wait_s * 1e9:
        now = follow(target)
    return now if now.arms[task.arm].gripper < _EMPTY else None


def _draw(contract: RobotContract, task: Task, kind: Stumble, random: np.random.Generator) -> _Mistake:
    angle, distance = random.uniform(0.0, 2.0 * np.pi), random.uniform(*_ASIDE)
    above = random.uniform(*_ABOVE)
    return _Mistake(
        task=task, aside=distance * np.array([np.cos(angle), np.sin(angle), 0.0]),
        open_below=0.0 if kind is Stumble.CLOSED else GraspGeometry(contract, task.arm).grasp_height + above,
        wait_s=random.uniform(*_SINCE_CLOSING_S))
