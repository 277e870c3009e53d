"""The folder of a generated data set: what is in it, and what belongs into it.

A folder belongs to one set of settings, so that it can be gone on with. Episodes come and go as whole files.
"""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from apt_bringup.record import metadata
from apt_training.claim import ClaimError, keep_to

SETTINGS = 'generation.json'
BAGS = 'bags'
"""The folder of all bags, beside the episode files."""


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
        if not noted.exists() and any(folder.glob('*.h5')):
            raise DatasetError(f'{folder} holds episodes, but no {SETTINGS} that says how they were made; '
                               'choose an empty folder')
        keep_to(noted, wanted)
    except ClaimError as error:
        raise DatasetError(str(error)) from error
    except OSError as error:
        raise DatasetError(f'cannot use {folder}: {error.strerror}') from error


def episode_file(folder: Path, number: int) -> Path:
    """Where an episode lies."""
    return folder / f'episode_{number:06d}.h5'


def bag_folder(folder: Path, number: int) -> Path:
    """Where the bag of an episode lies."""
    return folder / BAGS / f'episode_{number:06d}'


def is_whole(bag: Path) -> bool:
    """Whether a bag is there and complete: its description is written last."""
    return (bag / metadata.NAME).is_file()


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
