"""Episode files that a command line names, folders included."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from apt_policy.core.errors import UserError
from apt_training.episodes.files import EITHER, episode_files


class EpisodeFilesError(UserError, ValueError):
    """No episodes where some were expected; the message says where and what to do."""


def find_episodes(paths: Sequence[Path]) -> list[Path]:
    """Episode files among ``paths``, folders searched.

    Raises:
        EpisodeFilesError: a path does not exist, or a folder holds none.
    """
    return [file for path in paths for file in _below(path)]


def _below(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise EpisodeFilesError(f'{path} does not exist; give episode files ({EITHER}) or folders of them')
    if path.is_file():
        yield path
        return
    found = episode_files(path)
    if not found:
        raise EpisodeFilesError(f'{path} holds no episode file ({EITHER}); convert recordings with apt-convert')
    yield from found
