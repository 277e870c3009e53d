"""What the demonstration asks for: instructions given in one scene, and the task that each of them means.

Instructions that are drawn for the scene are scored, and so are those that a user types where they are a wording of
a task that the scene allows. Any other is followed and filmed only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apt_policy.core.contract import RobotContract
from apt_sim.evaluation.splits import Split, allows, wordings
from apt_sim.tasks.draw import NoTaskError, TaskDrawer
from apt_sim.tasks.episode import Assignment
from apt_sim.tasks.language import draw_phrase, parse
from apt_sim.tasks.task import Situation, Skill, Task


@dataclass(frozen=True, kw_only=True)
class Errand:
    """One instruction."""

    prompt: str
    assignment: Assignment | None = None
    """The task that it means, in the same words; None where it is no task of the scene."""


def typed(contract: RobotContract, scene: Situation, prompts: Sequence[str]) -> tuple[Errand, ...]:
    """Understand the instructions of a user, as far as they are tasks of the scene."""
    drawer = TaskDrawer(contract)
    tasks = [task for skill in Skill for task in drawer.possible(skill, scene)]
    return tuple(_understood(prompt, tasks) for prompt in prompts)


def _understood(prompt: str, tasks: Sequence[Task]) -> Errand:
    # As the node shows it: white space is one space.
    shown = ' '.join(prompt.split())
    task = parse(shown, tasks)
    return Errand(prompt=shown, assignment=None if task is None else Assignment(task=task, instruction=shown))


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
