"""Command line of the tutorial."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from apt_policy.cli import flag, require_at_least


@dataclass(frozen=True, kw_only=True)
class TutorialArguments:
    """Go from nothing to a trained policy that drives the simulated robot, with the suite's own commands."""

    out: Annotated[Path, flag('FOLDER')] = Path('out/tutorial')
    """Folder of everything."""
    episodes: Annotated[int, flag('N')] = 10
    """Episodes to train on."""
    held_out: Annotated[int, flag('N')] = 2
    """Episodes to evaluate on."""
    max_steps: Annotated[int, flag('N')] = 300
    """Optimizer steps per stage."""
    watch: Annotated[float, flag('S')] = 8.0
    """Time that the policy runs at the end, on the robot's clock."""
    speed: Annotated[float | None, flag('X', default='by the number of cores')] = None
    """Simulated seconds per second while recording."""
    only: Annotated[tuple[str, ...], flag('STEP [STEP ...]', default='')] = ()
    """Run these steps and no others."""
    fresh: bool = False
    """Delete what an earlier run left."""

    def __post_init__(self) -> None:
        """Check numbers.

        Raises:
            UsageError: one is too small.
        """
        require_at_least(1, episodes=self.episodes, held_out=self.held_out, max_steps=self.max_steps)


@dataclass(frozen=True, kw_only=True)
class RecordingArguments:
    """Record scripted demonstrations: the simulated robot, its scripted expert and apt-record at once."""

    bag: Annotated[Path, flag('BAG'), Positional]
    """Folder of the bag."""
    contract: Annotated[str, flag('FILE', default='the installed one of the simulated ALOHA')] = ''
    """Contract of the robot."""
    episodes: Annotated[int, flag('N')] = 10
    """Episodes to record."""
    seed: Annotated[int, flag('N')] = 0
    """Seed of the first scene."""
    skills: Annotated[str, flag('SKILL[,...]')] = 'pick,place'
    """Skills, separated by commas."""
    speed: Annotated[float, flag('X')] = 1.0
    """Simulated seconds per second."""
    size: Annotated[str, flag('WIDTHxHEIGHT')] = '160x120'
    """Size of the images [px]."""
