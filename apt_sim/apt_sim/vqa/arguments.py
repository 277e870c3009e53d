"""Command line of ``apt-sim-vqa``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from apt_policy.cli import flag, require_at_least
from apt_sim.arguments import SimArguments


@dataclass(frozen=True, kw_only=True)
class VqaArguments(SimArguments):
    """Write pictures of the simulated table and questions about them, with answers, to fine-tune a VLM on.

    The same settings give the same bytes, whatever the number of workers; an interrupted run resumes at the first
    shard that is missing.
    """

    out: Annotated[Path, flag('FOLDER')]
    """Folder of the shards."""
    shards: Annotated[int, flag('N')]
    """Shards that the folder shall hold, of 50 scenes each."""

    def __post_init__(self) -> None:
        """Check numbers.

        Raises:
            UsageError: one is too small.
        """
        super().__post_init__()
        require_at_least(1, shards=self.shards)
