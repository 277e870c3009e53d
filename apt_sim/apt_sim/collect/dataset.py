"""Files of a collected data set: paths, missing episodes and cleanup. Episodes are written atomically."""

from pathlib import Path

from apt_policy.core.atomic import remove_partials_of
from apt_recorder import metadata
from apt_training.episodes.files import SUFFIX

BAGS = 'bags'
"""Name of the folder of all bags, beside the episode files."""


def episode_file(folder: Path, number: int) -> Path:
    """Return the path of an episode file."""
    return folder / f'episode_{number:06d}{SUFFIX}'


def bag_folder(folder: Path, number: int) -> Path:
    """Return the folder of an episode's bag."""
    return folder / BAGS / f'episode_{number:06d}'


def is_complete_bag(bag: Path) -> bool:
    """Return whether a bag is complete; its metadata is written last."""
    return (bag / metadata.METADATA_FILE).is_file()


def missing_episodes(folder: Path, episodes: int, *, bags: int = 0) -> list[int]:
    """Return the numbers of missing episodes, and of the first ``bags`` episodes whose bag is missing."""
    return [number for number in range(episodes) if not episode_file(folder, number).exists()
            or (number < bags and not is_complete_bag(bag_folder(folder, number)))]


def remove_partial_files(folder: Path, pid: int) -> None:
    """Remove the temporary files of a process that has ended."""
    for place in (folder, folder / BAGS):
        remove_partials_of(pid, place)
