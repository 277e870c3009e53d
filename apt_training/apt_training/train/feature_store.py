"""Tensors on disk by key: one small file each, written whole or not at all.

Any number of processes may read and write the same folder: a file appears by renaming, and whoever
writes a key twice writes the same. Knows nothing of what the tensors mean.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from apt_policy.core.atomic import atomic_file

log = logging.getLogger(__name__)


class TensorStore:
    """A folder of ``ab/abcdef.safetensors``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """Of an entry, present or not."""
        return self.folder / key[:2] / f'{key}.safetensors'

    def read(self, key: str) -> dict[str, Tensor] | None:
        """An entry; None where there is none, or with a warning where it cannot be read."""
        path = self.path(key)
        try:
            return load_file(path)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError) as error:
            log.warning('%s is corrupt (%s); computing it again', path, error)
            return None

    def write(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Put an entry there, over one of that key.

        Raises:
            OSError: the disk is full, or the folder may not be written.
        """
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic_file(path, shared=True) as fresh:
                save_file({part: tensor.contiguous() for part, tensor in tensors.items()}, fresh)
        except SafetensorError as error:
            raise OSError(f'cannot write {path}: {error}') from error

    def count(self) -> int:
        """Entries there are."""
        return sum(1 for _ in self.folder.glob('??/*.safetensors'))
