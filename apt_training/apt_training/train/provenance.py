"""Provenance of a run: the version of the suite, and the values of its recipe."""

import json
import subprocess
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

from apt_training.train.config import TrainConfig

RECIPE_FILE = 'recipe.json'
_FILE_KEYS = {'batch_size': 'batch', 'accumulation_steps': 'accumulation', 'noise_samples': 'draws',
              'checkpoint': 'keep', 'interval': 'every', 'keep_latest': 'last', 'milestone_interval': 'milestone_every'}
"""Keys of ``recipe.json`` that differ from today's field names; the format of the file does not change."""


def git_revision() -> str:
    """Return the git commit of this file, followed by ``+`` if files were changed; empty outside git."""
    folder = Path(__file__).resolve().parent
    try:
        described = subprocess.run(['git', 'describe', '--always', '--dirty=+', '--abbrev=12', '--exclude=*'],
                                   cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ''
    return described.stdout.strip()


def write_recipe(folder: Path, config: TrainConfig) -> None:
    """Write all values of a run for people to read; resuming does not read them."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_with_file_keys(asdict(config)), indent=2, default=_plain)
    (folder / RECIPE_FILE).write_text(text + '\n')


def _with_file_keys(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    return {_FILE_KEYS.get(key, key): _with_file_keys(value) for key, value in values.items()}


def _plain(value: object) -> object:
    return value.value if isinstance(value, Enum) else str(value)
