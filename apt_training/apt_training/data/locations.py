"""Locations of datasets on this machine, from a YAML file that environment variables override.

This module knows names and folders; :mod:`~apt_training.data.open_datasets` opens them.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from apt_policy.core.errors import UserError

SHIPPED = Path(__file__).with_name('locations.yaml')


class LocationError(UserError, ValueError):
    """Dataset that cannot be found; the message names the file and the variable that may define its location."""


@dataclass(frozen=True, kw_only=True)
class Location:
    """Location of one dataset."""

    folder: Path
    """Folder of its episode files, or one episode file."""
    videos: Path | None = None
    """Folder of its videos if it differs from the one of the dataset's spec."""


class Locations:
    """Locations from one file, overridden by environment variables."""

    def __init__(self, file: Path | None = None, environment: Mapping[str, str] | None = None) -> None:
        """Read a locations file.

        Args:
            file: YAML file; None: the shipped one.
            environment: environment variables; None: those of the process.

        Raises:
            LocationError: the file is absent, not YAML, or not a mapping of names to folders.
        """
        self.file = SHIPPED if file is None else Path(file)
        self._environment = os.environ if environment is None else environment
        try:
            content = yaml.safe_load(self.file.read_text()) or {}
        except OSError as error:
            raise LocationError(f'cannot read dataset locations {self.file}: {error.strerror}') from error
        except yaml.YAMLError as error:
            raise LocationError(f'{self.file} is not YAML: {error}') from error
        if not isinstance(content, dict):
            raise LocationError(f'{self.file} holds {type(content).__name__}; expected a mapping of dataset names to '
                                'folders')
        self._entries = {str(name): self._entry(str(name), value) for name, value in content.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all datasets in the file."""
        return tuple(self._entries)

    def find(self, name: str) -> Location:
        """Return the location of a dataset.

        Raises:
            LocationError: neither the file nor the environment defines it, or the folder does not exist.
        """
        variable = location_variable(name)
        given = self._entries.get(name, {})
        folder = self._path('folder', given, variable)
        if folder is None:
            raise LocationError(f'dataset {name} has no location; add {name}: FOLDER to {self.file}, or set {variable}')
        if not folder.is_dir():
            origin = variable if variable in self._environment else str(self.file)
            raise LocationError(f'dataset {name}: folder {folder} does not exist; correct it in {origin}')
        return Location(folder=folder, videos=self._path('videos', given, f'{variable}_VIDEOS'))

    def _path(self, key: str, entry: Mapping[str, str | None], variable: str) -> Path | None:
        text = self._environment.get(variable) or entry.get(key)
        if not text:
            return None
        path = Path(os.path.expandvars(text)).expanduser()
        return path if variable in self._environment else self.file.parent / path

    def _entry(self, name: str, value: Any) -> dict[str, str | None]:
        entry = value if isinstance(value, dict) else {'folder': value}
        known = set(entry) <= {'folder', 'videos'}
        if not known or not all(text is None or isinstance(text, str) for text in entry.values()):
            raise LocationError(f'{self.file}: {name} is {value!r}; expected a folder, null, or '
                                '{folder: .., videos: ..}')
        return entry


def location_variable(name: str) -> str:
    """Return the environment variable that defines the location of a dataset."""
    return 'APT_DATA_' + re.sub(r'\W', '_', name).upper()
