"""Lets a hand close beside the thing before the recording begins, so that the data shows how to try again.

What a learner would see of the mistake itself is not worth learning; what comes after it is. Nothing of this is
recorded: a demonstration begins where it ends.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from apt_bringup.tasks.demonstrator import Demonstrator
from apt_bringup.tasks.episode import LONGEST_S
from apt_bringup.tasks.task import Situation, Skill, Task
from apt_policy.core.contract import RobotContract
from apt_policy.core.sample import Target

# How far beside its true place the thing is taken to be [m]: from where fingers just miss it to a thing's width.
_ASIDE = (0.015, 0.04)
# From the command to close to the beginning of the recording, while the hand stays where it is [s].
_SINCE_CLOSING_S = (0.9, 1.8)
# A hand that is open wider has something between its fingers.
_EMPTY = 0.3
_HALF_OPEN = 0.5


def stumbles(skill: Skill) -> bool:
    """Whether a skill has a grasp that can miss."""
    return skill is not Skill.PUSH


def stumble(contract: RobotContract, task: Task, scene: Situation, follow: Callable[[Target], Situation],
            random: np.random.Generator) -> Situation | None:
    """Demonstrate ``task`` as if its object lay beside its place, until the hand has closed on nothing.

    Args:
        follow: executes one control period.

    Returns:
        Where everything is then; None if the hand holds something after all, or never closed.
    """
    angle, distance = random.uniform(0.0, 2.0 * np.pi), random.uniform(*_ASIDE)
    aside = distance * np.array([np.cos(angle), np.sin(angle), 0.0])
    wait_s, arm = random.uniform(*_SINCE_CLOSING_S), list(contract.arms).index(task.arm)
    demonstrator = Demonstrator(contract, task, _mistaken(scene, task.object, aside), random=random)
    now = scene
    target = demonstrator.step(_mistaken(now, task.object, aside))
    while not target.gripper[arm] < _HALF_OPEN <= now.arms[task.arm].gripper:
        if now.stamp_ns - scene.stamp_ns > LONGEST_S * 1e9:
            return None
        now = follow(target)
        target = demonstrator.step(_mistaken(now, task.object, aside))
    closing_ns = now.stamp_ns
    while now.stamp_ns - closing_ns < wait_s * 1e9:
        now = follow(target)
    return now if now.arms[task.arm].gripper < _EMPTY else None


def _mistaken(now: Situation, name: str, aside: np.ndarray) -> Situation:
    pose = now.objects[name].copy()
    pose[:3, 3] += aside
    return replace(now, objects={**now.objects, name: pose})
