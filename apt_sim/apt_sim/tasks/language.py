"""Grammar of language instructions: from a task to its wordings, and back.

Wordings are numbered: the same number gives the same sentence for the same task, so that a study can hold out wordings.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np

from apt_sim.tasks.task import Skill, Task
from apt_sim.world.objects import Shape, object_spec

NOUNS: Mapping[Shape, tuple[str, ...]] = {
    Shape.CUBE: ('cube', 'block'), Shape.CUP: ('cup', 'mug'), Shape.BAR: ('bar', 'brick')}
CONTAINERS = ('tray', 'container', 'box')
_TRAYS = tuple(f'the {{tray}} {noun}' for noun in CONTAINERS)
_HANDS = ('the {arm} arm', 'the {arm} hand', 'your {arm} gripper')

_SENTENCES: dict[Skill, tuple[str, ...]] = {
    Skill.PICK: ('pick up {c}', 'grasp {c}', 'lift {c}', 'take {c}', 'grab {c} and lift it',
                 'pick {c} up from the table', 'please pick up {c}', 'raise {c} off the table'),
    Skill.PLACE: ('put {c} into {t}', 'place {c} in {t}', 'drop {c} into {t}', 'move {c} to {t}',
                  'take {c} and put it in {t}', '{c} goes into {t}', 'please put {c} in {t}',
                  'pick up {c} and place it in {t}'),
    Skill.HAND_OVER: ('hand {c} to {r}', 'pass {c} to {r}', 'give {c} to {r}', 'transfer {c} to {r}',
                      'hand {c} over to {r}', 'let {r} take {c}'),
    Skill.PUSH: ('push {c} to the {side}', 'slide {c} to the {side}', 'move {c} to the {side}',
                 'shove {c} {side}', 'nudge {c} to the {side} side', 'push {c} over to the {side}'),
}
_WITH_ARM = ('{s} with {h}', 'use {h} to {s}', 'with {h}, {s}')


def wording_count(task: Task) -> int:
    """Return the number of wordings of a task."""
    return len(_wordings(task))


def format_instruction(task: Task, wording: int) -> str:
    """Return the instruction for a task in one wording.

    Args:
        task: task to describe.
        wording: 0 .. :func:`wording_count` - 1.

    Raises:
        IndexError: the wording does not exist.
    """
    wordings = _wordings(task)
    if not 0 <= wording < len(wordings):
        raise IndexError(f'wording of {task.skill.value} is {wording}, expected 0 to {len(wordings) - 1}')
    return _filled(wordings[wording], task)


def parse_instruction(instruction: str, tasks: Iterable[Task]) -> Task | None:
    """Find the task that an instruction describes; inverse of :func:`format_instruction`.

    Case, repeated spaces and a final full stop or exclamation mark are ignored.

    Args:
        instruction: text typed by a user.
        tasks: candidate tasks, such as those that are feasible in a scene.

    Returns:
        The task, or None if the instruction is no wording of any candidate.
    """
    said = _plain(instruction)
    return next((task for task in tasks if said in (_plain(_filled(wording, task)) for wording in _wordings(task))),
                None)


def _plain(instruction: str) -> str:
    return ' '.join(instruction.lower().split()).rstrip('.! ')


def sample_instruction(task: Task, random: np.random.Generator, *, among: Sequence[int] | None = None) -> str:
    """Sample a wording of a task.

    Args:
        task: task to describe.
        random: generator to sample from.
        among: numbers of the wordings to choose from, modulo :func:`wording_count`; None allows all.
    """
    choices = range(wording_count(task)) if among is None else [number % wording_count(task) for number in among]
    return format_instruction(task, int(random.choice(np.asarray(choices))))


def _wordings(task: Task) -> list[str]:
    """Return templates with the task's fields, the plainest first."""
    sentences = [
        sentence.replace('{c}', name).replace('{t}', tray).replace('{r}', receiver)
        for tray, receiver, name, sentence in product(
            _TRAYS if task.tray else ('',), _receivers() if task.receiver else ('',), _names(task.object),
            _SENTENCES[task.skill])]
    if not task.arm_named or task.skill is Skill.HAND_OVER:
        return sentences
    # "please ..." and sentences that do not begin with a verb are ungrammatical after "use ... to".
    plain = [s for s in sentences if not s.startswith(('please', 'the '))]
    return [form.replace('{s}', sentence).replace('{h}', hand)
            for form, hand, sentence in product(_WITH_ARM, _HANDS, plain)]


def _filled(wording: str, task: Task) -> str:
    side = task.side.value if task.side else ''
    return wording.format(tray=task.tray, arm=task.arm, receiver=task.receiver, side=side)


def _names(name: str) -> tuple[str, ...]:
    meant = object_spec(name)
    return tuple(f'the {meant.colour} {noun}' for noun in NOUNS[meant.shape])


def _receivers() -> tuple[str, ...]:
    return tuple(hand.replace('{arm}', '{receiver}') for hand in _HANDS)
