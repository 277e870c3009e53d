"""The folder of a generated data set: what is in it, and what belongs into it.

A folder belongs to one set of settings, so that it can be gone on with. Episodes come and go as whole files.
"""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from apt_bringup.trials.bags import BAGS, bag_folder, is_whole
from apt_bringup.trials.generate import episode_file

SETTINGS = 'generation.json'


class DatasetError(ValueError):
    """A folder that does not belong to these settings, or cannot be used; the message says what to do."""


def claim(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Make the folder, and write down what it is for.

    Raises:
        DatasetError: it belongs to other settings, or cannot be made.
    """
    noted = folder / SETTINGS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if noted.exists():
            _compare(noted, wanted)
            return
        if any(folder.glob('*.h5')):
            raise DatasetError(f'{folder} holds episodes, but no {SETTINGS} that says how they were made; '
                               'choose an empty folder')
        fresh = noted.with_suffix(f'.{os.getpid()}.tmp')
        fresh.write_text(json.dumps(wanted, indent=2, sort_keys=True) + '\n')
        os.replace(fresh, noted)
    except OSError as error:
        raise DatasetError(f'cannot use {folder}: {error.strerror}') from error


def missing(folder: Path, episodes: int, *, bags: int = 0) -> list[int]:
    """Numbers of the episodes that are not there yet, or whose bag is not, of the first ``bags``."""
    return [number for number in range(episodes) if not episode_file(folder, number).exists()
            or (number < bags and not is_whole(bag_folder(folder, number)))]


def sweep(folder: Path, pid: int) -> None:
    """Remove what a process that ended left half written."""
    for file in folder.glob(f'.*.{pid}.partial'):
        with suppress(FileNotFoundError):
            file.unlink()
    for bag in (folder / BAGS).glob(f'.*.{pid}.partial'):
        shutil.rmtree(bag, ignore_errors=True)


def _compare(noted: Path, wanted: Mapping[str, Any]) -> None:
    try:
        found = json.loads(noted.read_text())
    except json.JSONDecodeError as error:
        raise DatasetError(f'{noted} is not JSON ({error}); choose another folder') from error
    differing = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    if differing:
        key = differing[0]
        raise DatasetError(f'{noted.parent} was made with {key} = {found.get(key)!r}, these settings have '
                           f'{wanted.get(key)!r}; choose another folder, or the same settings to go on')
