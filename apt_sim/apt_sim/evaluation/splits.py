"""Splits of instructions: objects, trays and wordings for training and for each test.

Training has few instructions in many scenes. Each test split differs from training in one respect only, and its
held-out objects and trays are on the table in training too, without being named in an instruction.
"""

from collections.abc import Sequence
from enum import Enum

from apt_policy.core.errors import UserError, did_you_mean
from apt_sim.tasks import language
from apt_sim.tasks.task import Skill, Task
from apt_sim.world.objects import ALL_OBJECTS, TRAY_COLOURS

TRAIN_OBJECTS = ('red cube', 'green cube', 'yellow cube', 'red cup', 'blue cup', 'orange cup',
                 'green bar', 'blue bar', 'purple bar')
"""Objects in training instructions: half of all pairs, with every colour and every shape."""
HELD_OUT_OBJECTS = tuple(name for name in ALL_OBJECTS if name not in TRAIN_OBJECTS)
TRAIN_TRAYS = ('white', 'black', 'red')
HELD_OUT_TRAYS = tuple(colour for colour in TRAY_COLOURS if colour not in TRAIN_TRAYS)
TRAIN_WORDING_COUNT = 4
"""Number of training wordings of every task: the first ones of the grammar, which use its plainest nouns."""


class SplitError(UserError, ValueError):
    """Unknown split or skill, or a split without its required skill; the message lists the valid ones."""


class InstructionSplit(Enum):
    """Set of instructions; the distribution of scenes is the same for all splits."""

    TRAIN = 'train'
    """Training objects, trays and wordings, for demonstrations."""
    SEEN = 'seen'
    """Training instructions in other scenes."""
    UNSEEN_OBJECT = 'unseen_object'
    """Pairs of colour and shape that are in no training instruction."""
    UNSEEN_CONTAINER = 'unseen_container'
    """Trays that are in no training instruction."""
    UNSEEN_WORDING = 'unseen_wording'
    """Training tasks in held-out wordings."""
    COMPOSED = 'composed'
    """Two training instructions, the second given when the first is done."""

    @property
    def required_skill(self) -> Skill | None:
        """Skill without which the split has no instructions; None if there is none."""
        return Skill.PLACE if self in (InstructionSplit.UNSEEN_CONTAINER, InstructionSplit.COMPOSED) else None


TEST_SPLITS = tuple(split for split in InstructionSplit if split is not InstructionSplit.TRAIN)


def is_in_split(split: InstructionSplit, task: Task) -> bool:
    """Return whether a task belongs to the split; tasks that name the arm belong to none."""
    if task.arm_named:
        return False
    held_out_object, held_out_tray = task.object in HELD_OUT_OBJECTS, task.tray in HELD_OUT_TRAYS
    return (held_out_object is (split is InstructionSplit.UNSEEN_OBJECT)
            and held_out_tray is (split is InstructionSplit.UNSEEN_CONTAINER))


def split_wordings(split: InstructionSplit, task: Task) -> range:
    """Return the numbers of the wordings that the split uses for a task."""
    if split is InstructionSplit.UNSEEN_WORDING:
        return range(TRAIN_WORDING_COUNT, language.wording_count(task))
    return range(TRAIN_WORDING_COUNT)


def first_skills(split: InstructionSplit, skills: Sequence[Skill]) -> tuple[Skill, ...]:
    """Return the skills that the first instruction of the split can have.

    Raises:
        SplitError: the split's required skill is missing.
    """
    needed = split.required_skill
    if needed is not None and needed not in skills:
        raise SplitError(f'skills is {", ".join(skill.value for skill in skills)}; '
                         f'the split {split.value} requires {needed.value}')
    return tuple(skills) if needed is None else (needed,)


def parse_split(name: str) -> InstructionSplit:
    """Parse the name of a split; hyphens count as underscores.

    Raises:
        SplitError: the split does not exist.
    """
    known = [split.value for split in InstructionSplit]
    return InstructionSplit(_known(name.strip().replace('-', '_'), known, 'split'))


def parse_skills(names: str) -> tuple[Skill, ...]:
    """Parse a comma-separated list of skills.

    Raises:
        SplitError: a skill does not exist, or the list is empty.
    """
    return tuple(dict.fromkeys(
        Skill(_known(name.strip().replace('-', '_'), [skill.value for skill in Skill], 'skill'))
        for name in names.split(',')))


def _known(name: str, choices: list[str], what: str) -> str:
    if name in choices:
        return name
    near = did_you_mean(name, choices)
    raise SplitError(f'there is no {what} {name!r}{near or ";"} {"Expected" if near else "expected"} one of '
                     + ', '.join(choices))
