"""What the demonstration asks for: instructions given in one scene, and what is known of how each ends.

Instructions that a user types are followed and filmed; what they amount to, only a person can say. Those that are
drawn for the scene are judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apt_policy.core.contract import RobotContract
from apt_sim.evaluation.splits import Split, allows, wordings
from apt_sim.tasks.draw import NoTaskError, TaskDrawer
from apt_sim.tasks.episode import Assignment
from apt_sim.tasks.language import draw_phrase
from apt_sim.tasks.task import Situation, Skill


@dataclass(frozen=True, kw_only=True)
class Errand:
    """One instruction."""

    prompt: str
    assignment: Assignment | None = None
    """What it means, where that is known."""


def typed(prompts: Sequence[str]) -> tuple[Errand, ...]:
    """Of a user."""
    # As the node shows it: white space is one space.
    return tuple(Errand(prompt=' '.join(prompt.split())) for prompt in prompts)


def drawn(contract: RobotContract, scene: Situation, *, count: int, seed: int) -> tuple[Errand, ...]:
    """Instructions of the kind that was taught, each about another object of the scene.

    Raises:
        NoTaskError: the scene has not so many.
    """
    random = np.random.default_rng(seed)
    tasks = {task.object: task for task in TaskDrawer(contract).possible(Skill.PICK, scene)
             if allows(Split.SEEN, task)}
    if len(tasks) < count:
        raise NoTaskError(f'{len(tasks)} objects of this scene may be asked for, {count} are wanted')
    chosen = [sorted(tasks)[index] for index in random.permutation(len(tasks))[:count]]
    assignments = [Assignment(task=tasks[name], instruction=draw_phrase(
        tasks[name], random, among=wordings(Split.SEEN, tasks[name]))) for name in chosen]
    return tuple(Errand(prompt=assignment.instruction, assignment=assignment) for assignment in assignments)
