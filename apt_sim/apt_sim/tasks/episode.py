"""One episode from a seed: scene, task, instruction, demonstration, verdict.

The same seed gives the same episode. It steps a :class:`Stage`; whoever wants to see or record it is given
each control period as it passes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from apt_policy.core.contract import RobotContract
from apt_policy.core.sample import Target
from apt_sim.tasks.demonstrator import Demonstrator
from apt_sim.tasks.draw import TaskDrawer
from apt_sim.tasks.language import draw_phrase
from apt_sim.tasks.stage import Stage
from apt_sim.tasks.success import done
from apt_sim.tasks.task import Situation, Skill, Task

LONGEST_S = 60.0
"""An episode that takes longer has failed [s]."""

Watch = Callable[[Situation, Target], None]


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What is to be done, and how it is said."""

    task: Task
    instruction: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an episode ended."""

    assignment: Assignment
    success: bool
    duration_s: float
    """Simulated time."""
    holds: int
    """Control periods in which a bridge did not follow."""


def assign(contract: RobotContract, skills: Sequence[Skill], scene: Situation, random: np.random.Generator, *,
           wordings: Sequence[int] | None = None) -> Assignment:
    """Draw a task that the scene allows, and words for it.

    Args:
        wordings: numbers of the wordings to choose from; None: all.

    Raises:
        NoTaskError: the scene allows none of ``skills``.
    """
    task = TaskDrawer(contract).draw(skills, scene, random)
    return Assignment(task=task, instruction=draw_phrase(task, random, among=wordings))


def demonstrate(stage: Stage, skills: Sequence[Skill], seed: int, *, watch: Watch | None = None) -> Outcome:
    """Reset the stage to ``seed``, demonstrate one task on it, and judge the result.

    Args:
        watch: called with each situation and the target given in it.

    Raises:
        NoTaskError: the scene of this seed allows none of ``skills``.
    """
    contract, random = stage.simulation.contract, np.random.default_rng(seed)
    now = before = stage.reset(seed)
    assignment = assign(contract, skills, before, random)
    demonstrator = Demonstrator(contract, assignment.task, before, random=random, epoch=seed)
    end_ns = before.stamp_ns + round(LONGEST_S * 1e9)
    while not demonstrator.done and now.stamp_ns < end_ns:
        target = demonstrator.step(now)
        if watch is not None:
            watch(now, target)
        now = stage.follow(target)
    return Outcome(assignment=assignment, success=done(assignment.task, before, now),
                   duration_s=(now.stamp_ns - before.stamp_ns) / 1e9, holds=len(stage.holds))
