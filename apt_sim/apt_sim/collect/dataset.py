"""The folder of a generated data set: what is in it, and what is missing. Episodes come and go as whole files."""

from pathlib import Path

from apt_policy.core.atomic import remove_partials_of
from apt_recorder import metadata
from apt_training.episodes.files import SUFFIX

BAGS = 'bags'
"""The folder of all bags, beside the episode files."""


def episode_file(folder: Path, number: int) -> Path:
    """Where an episode lies."""
    return folder / f'episode_{number:06d}{SUFFIX}'


def bag_folder(folder: Path, number: int) -> Path:
    """Where the bag of an episode lies."""
    return folder / BAGS / f'episode_{number:06d}'


def is_whole(bag: Path) -> bool:
    """Whether a bag is there and complete: its description is written last."""
    return (bag / metadata.METADATA_FILE).is_file()


def missing(folder: Path, episodes: int, *, bags: int = 0) -> list[int]:
    """Numbers of the episodes that are not there yet, or whose bag is not, of the first ``bags``."""
    return [number for number in range(episodes) if not episode_file(folder, number).exists()
            or (number < bags and not is_whole(bag_folder(folder, number)))]


def sweep(folder: Path, pid: int) -> None:
    """Remove what a process that ended left half written."""
    for place in (folder, folder / BAGS):
        remove_partials_of(pid, place)
