"""Questions about a still scene with their answers, drawn from a small grammar.

They teach a vision-language model what the things on the table are called, what they look like, where they are and
what sentences about them mean: what a large one has read and seen elsewhere. So all objects, trays and wordings
are among them, those that no demonstration has as well. Nothing here says how a robot moves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from apt_sim.tasks.language import CONTAINERS, NOUNS, draw_phrase
from apt_sim.tasks.task import Side, Skill, Task
from apt_sim.vqa.sight import Sight
from apt_sim.world.things import ALL_OBJECTS, OBJECT_COLOURS, TRAY_COLOURS, thing

NOWHERE = 'nowhere'

# The first name of a place is its column, or its row: whichever was asked for.
_COLUMN_FIRST = ('where is the {n}?', 'point at the {n}', 'find the {n} for me', 'please look at the {n}',
                 'the {n}, where does it stand?', 'I want the {n}; where must I reach?')
_ROW_FIRST = ('how far away is the {n}?', 'locate the {n} on the table', 'show me the {n}', 'look for the {n}',
              'the {n}, how far is it?', 'which place has the {n}?')
_IN_PICTURE = ('where is the {n} in picture {k}?', 'picture {k}: find the {n}')


@dataclass(frozen=True)
class Turn:
    """A question and its answer."""

    question: str
    answer: str
    meant: str = ''
    """The thing on the table that the question is about, by the name it is marked with."""


def ask(sight: Sight, random: np.random.Generator, *, count: int) -> tuple[Turn, ...]:
    """``count`` different questions about a scene, in random order, and a description of it behind them."""
    kinds: Sequence[Callable[[Sight, np.random.Generator], Turn]] = (
        _where, _where, _where, _where_missing, _where_tray, _what, _what, _which_hand, _in_picture, _in_picture,
        _beside, _colour, _held, _meaning, _meant_place, _told, _told, _told, _told, _told, _told)
    turns: dict[str, Turn] = {}
    while len(turns) < count:
        turn = kinds[int(random.integers(len(kinds)))](sight, random)
        turns.setdefault(turn.question, turn)
    return (*turns.values(), Turn('describe the table', describe(sight)))


def describe(sight: Sight) -> str:
    """All things from left to right, each with its place."""
    objects = sorted(sight.objects.items(), key=lambda item: item[1])
    trays = sorted(((f'{colour} tray', where) for colour, where in sight.trays.items()), key=lambda item: item[1])
    return ', '.join(f'{name} {_place(where)}' for name, where in (*objects, *trays))


def _where(sight: Sight, random: np.random.Generator) -> Turn:
    name = _any(tuple(sight.objects), random)
    return _place_of(_called(name, random), name, sight.objects[name], random)


def _where_missing(sight: Sight, random: np.random.Generator) -> Turn:
    name = _any([name for name in ALL_OBJECTS if name not in sight.objects], random)
    return Turn(_any((*_COLUMN_FIRST, *_ROW_FIRST), random).format(n=_called(name, random)), NOWHERE)


def _where_tray(sight: Sight, random: np.random.Generator) -> Turn:
    colour = _any(tuple(TRAY_COLOURS), random)
    called = f'{colour} {_any(CONTAINERS, random)}'
    if colour not in sight.trays:
        return Turn(_any((*_COLUMN_FIRST, *_ROW_FIRST), random).format(n=called), NOWHERE)
    return _place_of(called, f'{colour} tray', sight.trays[colour], random)


def _place_of(called: str, name: str, where: tuple[int, int], random: np.random.Generator) -> Turn:
    question = _any((*_COLUMN_FIRST, *_ROW_FIRST), random)
    x, y = (f'x{where[0]}', f'y{where[1]}')
    return Turn(question.format(n=called), f'{x} {y}' if question in _COLUMN_FIRST else f'{y} {x}', name)


def _what(sight: Sight, random: np.random.Generator) -> Turn:
    name = _any(tuple(sight.objects), random)
    question = _any(('what is at {p}?', 'what stands at {p}?'), random)
    return Turn(question.format(p=_place(sight.objects[name])), name)


def _which_hand(sight: Sight, random: np.random.Generator) -> Turn:
    name = _any(tuple(sight.objects), random)
    question = _any(('which hand is nearer to the {n}?', 'who should reach for the {n}?'), random)
    return Turn(question.format(n=_called(name, random)), sight.nearer[name], name)


def _in_picture(sight: Sight, random: np.random.Generator) -> Turn:
    number = int(random.integers(len(sight.pictured)))
    pictured = tuple(sight.pictured.values())[number]
    name = _any(tuple(sight.objects), random)
    question = _any(_IN_PICTURE, random).format(n=_called(name, random), k=number + 1)
    return Turn(question, 'u{} v{}'.format(*pictured[name]) if name in pictured else NOWHERE, name)


def _beside(sight: Sight, random: np.random.Generator) -> Turn:
    first, *others = random.permutation(np.array(tuple(sight.objects)))
    # What stands in one column is neither left nor right of each other.
    others = [name for name in others if sight.objects[name][0] != sight.objects[first][0]]
    if not others:
        return _what(sight, random)
    second = others[0]
    side = 'left' if sight.objects[first] < sight.objects[second] else 'right'
    question = 'is the {a} left or right of the {b}?'
    return Turn(question.format(a=_called(first, random), b=_called(second, random)), side)


def _colour(sight: Sight, random: np.random.Generator) -> Turn:
    colour = _any(tuple(OBJECT_COLOURS), random)
    there = sorted((where, name) for name, where in sight.objects.items() if thing(name).colour == colour)
    return Turn(f'what is {colour}?', ', '.join(name for _, name in there) or 'nothing')


def _held(sight: Sight, random: np.random.Generator) -> Turn:
    arm = _any(sorted(set(sight.nearer.values()) | set(sight.held)), random)
    return Turn(f'what does the {arm} hand hold?', sight.held.get(arm, 'nothing'))


def _meaning(sight: Sight, random: np.random.Generator) -> Turn:
    task = _task(sight, random, among=ALL_OBJECTS)
    meant = {Skill.PICK: f'lift {task.object}', Skill.PLACE: f'{task.object} into {task.tray} tray',
             Skill.HAND_OVER: f'{task.object} to {task.receiver} hand',
             Skill.PUSH: f'{task.object} {task.side.value if task.side else ""}'}
    return Turn(f'what is meant by "{draw_phrase(task, random)}"?', meant[task.skill],
                task.object if task.object in sight.objects else '')


def _meant_place(sight: Sight, random: np.random.Generator) -> Turn:
    task = _task(sight, random, among=tuple(sight.objects))
    said = draw_phrase(task, random)
    x, y = (f'{axis}{number}' for axis, number in zip('xy', sight.objects[task.object], strict=True))
    question, answer = (('what would you touch to "{s}"?', f'{x} {y}'), ('how far must you reach to "{s}"?', f'{y} {x}')
                        )[random.integers(2)]
    return Turn(question.format(s=said), answer, task.object)


def _told(sight: Sight, random: np.random.Generator) -> Turn:
    """What a robot is told, without more ado; the answer says what it is about."""
    task = _task(sight, random, among=tuple(sight.objects))
    return Turn(draw_phrase(task, random), f'{task.object} {_place(sight.objects[task.object])}', task.object)


def _task(sight: Sight, random: np.random.Generator, *, among: Sequence[str]) -> Task:
    """Something that could be asked of a robot; nobody asks whether this one can do it."""
    skill = list(Skill)[random.integers(len(Skill))]
    arms = sorted(set(sight.nearer.values()) | set(sight.held)) or ['left']
    name = _any(among, random)
    arm = sight.nearer.get(name, _any(arms, random))
    return Task(skill=skill, object=name, arm=arm,
                tray=_any(tuple(TRAY_COLOURS), random) if skill is Skill.PLACE else '',
                receiver=_any(('left', 'right'), random) if skill is Skill.HAND_OVER else '',
                side=list(Side)[random.integers(2)] if skill is Skill.PUSH else None)


def _called(name: str, random: np.random.Generator) -> str:
    meant = thing(name)
    return f'{meant.colour} {_any(NOUNS[meant.shape], random)}'


def _place(where: tuple[int, int]) -> str:
    return f'x{where[0]} y{where[1]}'


def _any(choices: Sequence[str], random: np.random.Generator) -> str:
    return choices[int(random.integers(len(choices)))]
