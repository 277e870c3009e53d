"""A step of a longer piece of work: one command, and what it leaves behind. Words only; nothing is run here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command and what it leaves behind."""

    name: str
    why: str
    """One line for the reader."""
    typed: str
    """The command as a user would type it."""
    module: str
    words: tuple[str, ...]
    product: Path
    """Exists once the step is done."""

    @property
    def command(self) -> str:
        """On one line: a step that was done with it need not be done again."""
        return ' '.join((self.typed, *self.words))


Phase = tuple[Step, ...]
"""Steps that do not need each other, and may be done side by side."""


def named(wanted: Sequence[str], known: Sequence[Phase]) -> tuple[Phase, ...]:
    """The steps with these names, in the order in which they are known; all of them for no names.

    Raises:
        ValueError: a name that no step has.
    """
    names = [step.name for phase in known for step in phase]
    if unknown := [name for name in wanted if name not in names]:
        raise ValueError(f'no step {", ".join(map(repr, unknown))}; there are {", ".join(map(repr, names))}')
    chosen = (tuple(step for step in phase if not wanted or step.name in wanted) for phase in known)
    return tuple(phase for phase in chosen if phase)
