"""Episode files that a command line names, folders included."""

from collections.abc import Iterator, Sequence
from pathlib import Path


class EpisodeFilesError(ValueError):
    """No episodes where some were expected; the message says where and what to do."""


def find_episodes(paths: Sequence[Path]) -> list[Path]:
    """Episode files among ``paths``, folders searched for ``*.h5`` and ``*.hdf5``.

    Raises:
        EpisodeFilesError: a path does not exist, or a folder holds none.
    """
    return [file for path in paths for file in _below(path)]


def _below(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise EpisodeFilesError(f'{path} does not exist; give episode files (.h5) or folders of them')
    if path.is_file():
        yield path
        return
    found = sorted(file for ending in ('*.h5', '*.hdf5') for file in path.rglob(ending)
                   if not file.name.startswith('.'))
    if not found:
        raise EpisodeFilesError(f'{path} holds no episode file (*.h5, *.hdf5); convert recordings with apt-convert')
    yield from found
