"""Steps of a longer program: one command each, with its output."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class CommandStep:
    """Command with its output."""

    name: str
    description: str
    """One line for the user."""
    program: str
    """Program as a user would type it."""
    module: str
    """Python module of the program."""
    arguments: tuple[str, ...]
    output: Path
    """File or folder that exists once the step is done."""

    @property
    def command(self) -> str:
        """Command line; a step that was finished with the same one is not run again."""
        return ' '.join((self.program, *self.arguments))


Phase = tuple[CommandStep, ...]
"""Steps that do not depend on each other and may run in parallel."""


def select_steps(wanted: Sequence[str], known: Sequence[Phase]) -> tuple[Phase, ...]:
    """Select steps by name.

    Args:
        wanted: names of the steps; none selects all.
        known: all steps.

    Returns:
        The selected steps in the order of ``known``.

    Raises:
        ValueError: a step does not exist.
    """
    names = [step.name for phase in known for step in phase]
    if unknown := [name for name in wanted if name not in names]:
        raise ValueError(f'unknown step {", ".join(map(repr, unknown))}; expected some of '
                         f'{", ".join(map(repr, names))}')
    chosen = (tuple(step for step in phase if not wanted or step.name in wanted) for phase in known)
    return tuple(phase for phase in chosen if phase)
