"""Folders of what is made in bulk: they belong to one set of settings, and what is in them is whole."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from apt_training.claim import ClaimError, keep_to

SETTINGS = 'generation.json'


class FolderError(ValueError):
    """A folder that belongs to other settings, or cannot be used; the message says what to do."""


def claim(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Make the folder, and write down what it is for.

    Raises:
        FolderError: it belongs to other settings, or cannot be made.
    """
    noted = folder / SETTINGS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not noted.exists() and any(folder.glob('[!.]*')):
            raise FolderError(f'{folder} is not empty, and has no {SETTINGS} that says what it is for; '
                              'choose an empty folder, or a new one')
        keep_to(noted, wanted)
    except ClaimError as error:
        raise FolderError(str(error)) from error
    except OSError as error:
        raise FolderError(f'cannot use {folder}: {error.strerror}') from error


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A path to make a folder at, which is ``target`` when the block ends without an error; else nothing is."""
    for left in target.parent.glob(f'.{target.name}.*.partial'):
        shutil.rmtree(left, ignore_errors=True)
    # What is in it may be named after it, as the files of a bag are: so it has its own name, in another folder.
    around = target.with_name(f'.{target.name}.{os.getpid()}.partial')
    try:
        yield around / target.name
        # What is not whole by now is what somebody broke.
        shutil.rmtree(target, ignore_errors=True)
        os.replace(around / target.name, target)
    finally:
        shutil.rmtree(around, ignore_errors=True)
