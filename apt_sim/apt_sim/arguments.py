"""Flags that the commands of the simulation share."""

import os
from dataclasses import dataclass
from typing import Annotated

from apt_policy.cli import flag, require_at_least

CONTRACT = 'aloha_small.yaml'


@dataclass(frozen=True, kw_only=True)
class SimArguments:
    """Flags of the robot and of the machine."""

    contract: Annotated[str, flag('FILE', default=f'the installed {CONTRACT}')] = ''
    """Contract of the robot."""
    seed: Annotated[int, flag('N')] = 0
    """Seed of all scenes."""
    workers: Annotated[int, flag('N', default='one per core')] = len(os.sched_getaffinity(0))
    """Worker processes."""

    def __post_init__(self) -> None:
        """Check numbers.

        Raises:
            UsageError: one is too small.
        """
        require_at_least(1, workers=self.workers)
        require_at_least(0, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class TaskArguments(SimArguments):
    """Flags of the tasks."""

    skills: Annotated[str, flag('SKILL[,...]')] = 'pick,place'
    """Skills, separated by commas: pick, place, hand_over, push."""


def contract_path(given: str) -> str:
    """Return the contract that is asked for, or the one that is installed with this package."""
    from apt_policy.core.shipped import shipped_contract
    return given or str(shipped_contract(CONTRACT))
