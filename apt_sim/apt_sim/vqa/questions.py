"""Questions about a static scene with their answers, sampled from a small grammar.

They teach a vision-language model names, appearance and positions of objects and the meaning of instructions, which a
large model knows from its pre-training. All objects, trays and wordings occur, including those held out from
demonstrations. No question is about the motion of a robot.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from apt_sim.tasks.language import CONTAINERS, NOUNS, sample_instruction
from apt_sim.tasks.task import Side, Skill, Task
from apt_sim.vqa.annotations import SceneAnnotations
from apt_sim.world.objects import ALL_OBJECTS, OBJECT_COLOURS, TRAY_COLOURS, object_spec

NOWHERE = 'nowhere'

# An answer begins with the column or with the row of the cell, depending on the question.
_COLUMN_FIRST = ('where is the {n}?', 'point at the {n}', 'find the {n} for me', 'please look at the {n}',
                 'the {n}, where does it stand?', 'I want the {n}; where must I reach?')
_ROW_FIRST = ('how far away is the {n}?', 'locate the {n} on the table', 'show me the {n}', 'look for the {n}',
              'the {n}, how far is it?', 'which place has the {n}?')
_IN_IMAGE = ('where is the {n} in picture {k}?', 'picture {k}: find the {n}')


@dataclass(frozen=True)
class QuestionAnswer:
    """Question with its answer."""

    question: str
    answer: str
    subject: str = ''
    """Object or tray that the question is about, by its name in the annotations; empty if there is none."""


def sample_questions(annotations: SceneAnnotations, random: np.random.Generator, *,
                     count: int) -> tuple[QuestionAnswer, ...]:
    """Sample different questions about a scene, and append a description of it.

    Args:
        annotations: annotations of the scene.
        random: generator to sample from.
        count: number of questions.
    """
    kinds: Sequence[Callable[[SceneAnnotations, np.random.Generator], QuestionAnswer]] = (
        _where, _where, _where, _where_missing, _where_tray, _what, _what, _which_hand, _in_image, _in_image,
        _beside, _colour, _held, _meaning, _goal_cell, _instruction, _instruction, _instruction, _instruction,
        _instruction, _instruction)
    pairs: dict[str, QuestionAnswer] = {}
    while len(pairs) < count:
        pair = kinds[int(random.integers(len(kinds)))](annotations, random)
        pairs.setdefault(pair.question, pair)
    return (*pairs.values(), QuestionAnswer('describe the table', describe_table(annotations)))


def describe_table(annotations: SceneAnnotations) -> str:
    """Describe all objects from left to right, then all trays, each with its cell."""
    objects = sorted(annotations.objects.items(), key=lambda item: item[1])
    trays = sorted(((f'{colour} tray', where) for colour, where in annotations.trays.items()), key=lambda item: item[1])
    return ', '.join(f'{name} {_cell_name(where)}' for name, where in (*objects, *trays))


def _where(annotations: SceneAnnotations, random: np.random.Generator) -> QuestionAnswer:
    name = _choice(tuple(annotations.objects), random)
    return _cell_answer(_called(name, random), name, annotations.objects[name], random)


def _where_missing(annotations: SceneAnnotations, random: np.random.Generator) -> QuestionAnswer:
    name = _choice([name for name in ALL_OBJECTS if name not in annotations.objects], random)
    return QuestionAnswer(_choice((*_COLUMN_FIRST, *_ROW_FIRST), random).format(n=_called(name, random)), NOWHERE)


def _where_tray(annotations: SceneAnnotations, random: np.random.Generator) -> QuestionAnswer:
    colour = _choice(tuple(TRAY_COLOURS), random)
    called = f'{colour} {_choice(CONTAINERS, random)}'
    if colour not in annotations.trays:
        return QuestionAnswer(_choice((*_COLUMN_FIRST, *_ROW_FIRST), random).format(n=called), NOWHERE)
    return _cell_answer(called, f'{colour} tray', annotations.trays[colour], random)


def _cell_answer(called: str, name: str, where: tuple[int, int], random: np.random.Generator) -> QuestionAnswer:
    question = _choice((*_COLUMN_FIRST, *_ROW_FIRST), random)
    x, y = (f'x{where[0]}', f'y{where[1]}')
    return QuestionAnswer(question.format(n=called), f'{x} {y}' if question in _COLUMN_FIRST else f'{y} {x}', name)


def _what(annotations: SceneAnnotations, random: np.random.Generator) -> QuestionAnswer:
    name = _choice(tuple(annotations.objects), random)
    question = _choice(('what is at {p}?', 'what stands at {p}?'), random)
    return QuestionAnswer(question.format(p=_cell_name(annotations.objects[name])), name)


def _which_hand(annotations: SceneAnnotations, random: np.random.Generator) -> QuestionAnswer:
    name = _choice(tuple(annotations.objects), random)
    question = _choice(('which hand is nearer to the {n}?', 'who should reach for the {n}?'), random)
    return QuestionAnswer(question.format(n=_called(name, random)), annotations.nearer_arm[name], name)


def _in_image(annotations: SceneAnnotations, random: np.random.Generator) -> QuestionAnswer:
    number = int(random.integers(len(annotations.image_cells)))
    pictured = tuple(annotations.image_cells.values())[number]
    name = _choice(tuple(annotations.objects), random)
    question = _choice(_IN_IMAGE, random).format(n=_called(name, random), k=number + 1)
    return QuestionAnswer(question, 'u{} v{}'.format(*pictured[name]) if name in pictured else NOWHERE, name)


def _beside(annotations: SceneAnnotations, random: np.random.Generator) -> QuestionAnswer:
    first, *others = random.permutation(np.array(tuple(annotations.objects)))
    # Objects in the same column are neither left nor right of each other.
    others = [name for name in others if annotations.objects[name][0] != annotations.objects[first][0]]
    if not others:
        return _what(annotations, random)
    second = others[0]
    side = 'left' if annotations.objects[first] < annotations.objects[second] else 'right'
    question = 'is the {a} left or right of the {b}?'
    return QuestionAnswer(question.format(a=_called(first, random), b=_called(second, random)), side)


def _colour(annotations: SceneAnnotations, random: np.random.Generator) -> QuestionAnswer:
    colour = _choice(tuple(OBJECT_COLOURS), random)
    there = sorted((where, name) for name, where in annotations.objects.items() if object_spec(name).colour == colour)
    return QuestionAnswer(f'what is {colour}?', ', '.join(name for _, name in there) or 'nothing')


def _held(annotations: SceneAnnotations, random: np.random.Generator) -> QuestionAnswer:
    arm = _choice(sorted(set(annotations.nearer_arm.values()) | set(annotations.held)), random)
    return QuestionAnswer(f'what does the {arm} hand hold?', annotations.held.get(arm, 'nothing'))


def _meaning(annotations: SceneAnnotations, random: np.random.Generator) -> QuestionAnswer:
    task = _task(annotations, random, among=ALL_OBJECTS)
    meant = {Skill.PICK: f'lift {task.object}', Skill.PLACE: f'{task.object} into {task.tray} tray',
             Skill.HAND_OVER: f'{task.object} to {task.receiver} hand',
             Skill.PUSH: f'{task.object} {task.side.value if task.side else ""}'}
    return QuestionAnswer(f'what is meant by "{sample_instruction(task, random)}"?', meant[task.skill],
                          task.object if task.object in annotations.objects else '')


def _goal_cell(annotations: SceneAnnotations, random: np.random.Generator) -> QuestionAnswer:
    task = _task(annotations, random, among=tuple(annotations.objects))
    said = sample_instruction(task, random)
    x, y = (f'{axis}{number}' for axis, number in zip('xy', annotations.objects[task.object], strict=True))
    question, answer = (('what would you touch to "{s}"?', f'{x} {y}'), ('how far must you reach to "{s}"?', f'{y} {x}')
                        )[random.integers(2)]
    return QuestionAnswer(question.format(s=said), answer, task.object)


def _instruction(annotations: SceneAnnotations, random: np.random.Generator) -> QuestionAnswer:
    """Return a bare instruction; the answer names the object and its cell."""
    task = _task(annotations, random, among=tuple(annotations.objects))
    answer = f'{task.object} {_cell_name(annotations.objects[task.object])}'
    return QuestionAnswer(sample_instruction(task, random), answer, task.object)


def _task(annotations: SceneAnnotations, random: np.random.Generator, *, among: Sequence[str]) -> Task:
    """Sample a task; it need not be feasible for the robot."""
    skill = list(Skill)[random.integers(len(Skill))]
    arms = sorted(set(annotations.nearer_arm.values()) | set(annotations.held)) or ['left']
    name = _choice(among, random)
    arm = annotations.nearer_arm.get(name, _choice(arms, random))
    return Task(skill=skill, object=name, arm=arm,
                tray=_choice(tuple(TRAY_COLOURS), random) if skill is Skill.PLACE else '',
                receiver=_choice(('left', 'right'), random) if skill is Skill.HAND_OVER else '',
                side=list(Side)[random.integers(2)] if skill is Skill.PUSH else None)


def _called(name: str, random: np.random.Generator) -> str:
    meant = object_spec(name)
    return f'{meant.colour} {_choice(NOUNS[meant.shape], random)}'


def _cell_name(where: tuple[int, int]) -> str:
    return f'x{where[0]} y{where[1]}'


def _choice(choices: Sequence[str], random: np.random.Generator) -> str:
    return choices[int(random.integers(len(choices)))]
