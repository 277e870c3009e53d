"""Folders of what is made in bulk: they belong to one set of settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apt_policy.core.errors import UserError
from apt_training.claim import ClaimError, keep_to

SETTINGS = 'generation.json'


class FolderError(UserError, ValueError):
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
