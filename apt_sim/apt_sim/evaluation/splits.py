"""What is taught and what is tested: which objects, trays and wordings an instruction may have.

Training sees few instructions in many scenes. Each test split leaves that in one respect only, and what it
adds lies on the table in training too, unasked for. Tables only; nothing is drawn or moved here.
"""

import difflib
from collections.abc import Sequence
from enum import Enum

from apt_policy.core.errors import UserError
from apt_sim.tasks import language
from apt_sim.tasks.task import Skill, Task
from apt_sim.world.things import ALL_OBJECTS, TRAY_COLOURS

TAUGHT_OBJECTS = ('red cube', 'green cube', 'yellow cube', 'red cup', 'blue cup', 'orange cup',
                  'green bar', 'blue bar', 'purple bar')
"""Half of all pairs; every colour and every shape is among them."""
HELD_OUT_OBJECTS = tuple(name for name in ALL_OBJECTS if name not in TAUGHT_OBJECTS)
TAUGHT_TRAYS = ('white', 'black', 'red')
HELD_OUT_TRAYS = tuple(colour for colour in TRAY_COLOURS if colour not in TAUGHT_TRAYS)
TAUGHT_WORDINGS = 4
"""Of every task; the first ones of the grammar, which use its plainest nouns."""


class SplitError(UserError, ValueError):
    """A split or a skill that does not exist, or two that do not go together; the message says which do."""


class Split(Enum):
    """A set of instructions; the scenes are drawn alike in all of them."""

    TRAIN = 'train'
    """Taught objects, trays and wordings, for demonstrations."""
    SEEN = 'seen'
    """The same instructions in scenes of its own."""
    UNSEEN_OBJECT = 'unseen_object'
    """Pairs of colour and shape that were never asked for."""
    UNSEEN_CONTAINER = 'unseen_container'
    """Trays that were never asked for."""
    UNSEEN_WORDING = 'unseen_wording'
    """Taught tasks in other words."""
    COMPOSED = 'composed'
    """Two taught instructions, the second given when the first is done."""

    @property
    def needs(self) -> Skill | None:
        """The skill without which the split has no instructions."""
        return Skill.PLACE if self in (Split.UNSEEN_CONTAINER, Split.COMPOSED) else None


TESTS = tuple(split for split in Split if split is not Split.TRAIN)


def allows(split: Split, task: Task) -> bool:
    """Whether an instruction for ``task`` belongs to the split; the arm is never named."""
    if task.arm_named:
        return False
    held_out_object, held_out_tray = task.object in HELD_OUT_OBJECTS, task.tray in HELD_OUT_TRAYS
    return (held_out_object is (split is Split.UNSEEN_OBJECT)
            and held_out_tray is (split is Split.UNSEEN_CONTAINER))


def wordings(split: Split, task: Task) -> range:
    """Numbers of the wordings that the split uses for a task."""
    if split is Split.UNSEEN_WORDING:
        return range(TAUGHT_WORDINGS, language.count(task))
    return range(TAUGHT_WORDINGS)


def skills_of(split: Split, skills: Sequence[Skill]) -> tuple[Skill, ...]:
    """Those of ``skills`` that a first instruction of the split may have.

    Raises:
        SplitError: none of them.
    """
    needed = split.needs
    if needed is not None and needed not in skills:
        raise SplitError(f'{split.value} needs the skill {needed.value}; '
                         f'got {", ".join(skill.value for skill in skills)}')
    return tuple(skills) if needed is None else (needed,)


def split_named(name: str) -> Split:
    """The split of a name; hyphens count as underscores.

    Raises:
        SplitError: there is none.
    """
    return Split(_known(name.strip().replace('-', '_'), [split.value for split in Split], 'split'))


def skills_named(names: str) -> tuple[Skill, ...]:
    """The skills of a list of names separated by commas.

    Raises:
        SplitError: one does not exist, or there is none at all.
    """
    return tuple(dict.fromkeys(
        Skill(_known(name.strip().replace('-', '_'), [skill.value for skill in Skill], 'skill'))
        for name in names.split(',')))


def _known(name: str, choices: list[str], what: str) -> str:
    if name in choices:
        return name
    near = difflib.get_close_matches(name, choices, n=1)
    hint = f'did you mean {near[0]!r}? ' if near else ''
    raise SplitError(f'there is no {what} {name!r}; {hint}there are {", ".join(choices)}')
