"""Where weights come from: which version of this suite made them, and with which values."""

import json
import subprocess
from dataclasses import asdict
from enum import Enum
from pathlib import Path

from apt_training.train.config import TrainConfig

RECIPE_FILE = 'recipe.json'


def git_revision() -> str:
    """The commit that this file stands in, ``+`` behind it if files were changed; empty outside git."""
    folder = Path(__file__).resolve().parent
    try:
        described = subprocess.run(['git', 'describe', '--always', '--dirty=+', '--abbrev=12', '--exclude=*'],
                                   cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ''
    return described.stdout.strip()


def write_recipe(folder: Path, config: TrainConfig) -> None:
    """All values of a run, for people to read; a run that goes on with others says so itself."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(config), indent=2, default=_plain)
    (folder / RECIPE_FILE).write_text(text + '\n')


def _plain(value: object) -> object:
    return value.value if isinstance(value, Enum) else str(value)
