"""Where datasets lie on this machine: one YAML file, and environment variables before it.

Knows names and folders; what is in them is ``declare``'s and ``open``'s.
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
    """A dataset that cannot be found; the message names the file and the variable that would say where it is."""


@dataclass(frozen=True, kw_only=True)
class Location:
    """Of one dataset."""

    folder: Path
    videos: Path | None = None
    """Folder of its videos, where the declaration's is not the right one."""


class Locations:
    """The content of one file, with the environment laid over it."""

    def __init__(self, file: Path | None = None, environment: Mapping[str, str] | None = None) -> None:
        """Read ``file``; None: the one that is shipped. ``environment`` is the process's unless given.

        Raises:
            LocationError: absent, not YAML, or not a mapping of names to folders.
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
            raise LocationError(f'{self.file} holds {type(content).__name__}, expected names of datasets with folders')
        self._entries = {str(name): self._entry(str(name), value) for name, value in content.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """Datasets that the file names, here or not."""
        return tuple(self._entries)

    def find(self, name: str) -> Location:
        """Where ``name`` lies.

        Raises:
            LocationError: neither the file nor the environment says so, or the folder does not exist.
        """
        variable = variable_of(name)
        given = self._entries.get(name, {})
        folder = self._path('folder', given, variable)
        if folder is None:
            raise LocationError(f'where dataset {name} lies is not known: write {name}: FOLDER into {self.file}, '
                                f'or set {variable}')
        if not folder.is_dir():
            origin = variable if variable in self._environment else str(self.file)
            raise LocationError(f'dataset {name}: folder {folder} does not exist; it was named by {origin}')
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


def variable_of(name: str) -> str:
    """The environment variable that says where dataset ``name`` lies."""
    return 'APT_DATA_' + re.sub(r'\W', '_', name).upper()
