"""Command line of ``apt-export``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from apt_policy.cli import flag


@dataclass(frozen=True, kw_only=True)
class ExportArguments:
    """Write a checkpoint as one folder that needs nothing else: weights, recipe, and a VLM of a local folder."""

    checkpoint: Annotated[Path, Positional, flag('CHECKPOINT')]
    """Folder of a run or of a checkpoint. The averaged weights are taken where the run has them."""
    out: Annotated[Path, flag('FOLDER')]
    """Folder to write; it must be empty or absent."""
    half: bool = False
    """Keep weights in bfloat16: half the size, for inference."""
