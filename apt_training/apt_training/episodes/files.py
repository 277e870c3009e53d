"""Suffixes of episode files, and search for them in folders."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from apt_policy.core.errors import UserError

SUFFIX = '.h5'
"""Suffix of the files that the suite writes."""
SUFFIXES = (SUFFIX, '.hdf5')
"""Suffixes of the files that it reads."""
SUFFIXES_TEXT = ' or '.join(SUFFIXES)
"""Suffixes in messages."""


class EpisodeFilesError(UserError, ValueError):
    """Error of a path without episode files."""


def episode_files(folder: Path, pattern: str = '**/*') -> list[Path]:
    """List the episode files below ``folder`` whose paths match the glob ``pattern``, sorted; without hidden ones."""
    return sorted(path for path in folder.glob(pattern)
                  if path.suffix in SUFFIXES and not path.name.startswith('.'))



def find_episodes(paths: Sequence[Path]) -> list[Path]:
    """Return the episode files among ``paths`` and below the folders among them.

    Raises:
        EpisodeFilesError: a path does not exist, or a folder has no episode file.
    """
    return [file for path in paths for file in _below(path)]


def _below(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise EpisodeFilesError(f'{path} does not exist, expected episode files ({SUFFIXES_TEXT}) or folders of them')
    if path.is_file():
        yield path
        return
    found = episode_files(path)
    if not found:
        raise EpisodeFilesError(f'{path} has no episode file ({SUFFIXES_TEXT}): convert recordings with apt-convert')
    yield from found
