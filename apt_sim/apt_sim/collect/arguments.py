"""Command line of ``apt-sim-collect``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from apt_policy.cli import UsageError, flag, require_at_least
from apt_sim.arguments import TaskArguments


@dataclass(frozen=True, kw_only=True)
class CollectArguments(TaskArguments):
    """Collect scripted demonstrations in simulation, as the episode files that the converter writes.

    The same settings give the same bytes, whatever the number of workers; an interrupted run resumes at the first
    episode, or bag, that is missing.
    """

    out: Annotated[Path, flag('FOLDER')]
    """Folder of the episodes."""
    episodes: Annotated[int, flag('N')]
    """Episodes that the folder shall hold."""
    split: Annotated[str, flag('SPLIT')] = 'train'
    """Split of objects and instructions: train, seen, unseen_object, unseen_container or unseen_wording."""
    bags: Annotated[int, flag('K')] = 0
    """Write the first K episodes as rosbag2 bags too, in the folder bags of --out."""
    action_noise: Annotated[float, flag('METRES')] = 0.0
    """Standard deviation of the noise that pushes the expert off its path, so that it has to recover; 0.01 is a lot."""
    recovery_share: Annotated[float, flag('SHARE')] = 0.0
    """Share of episodes that begin with the hand beside the object, closed or on its way down."""
    vary_cameras: bool = True
    """Perturb the poses of the cameras in every episode; the file says where they are."""

    def __post_init__(self) -> None:
        """Check numbers.

        Raises:
            UsageError: one cannot be used.
        """
        super().__post_init__()
        require_at_least(1, episodes=self.episodes)
        require_at_least(0, bags=self.bags)
        if self.bags > self.episodes:
            raise UsageError(f'--bags is {self.bags}, but the folder shall hold {self.episodes} episodes; a bag is '
                             f'made of an episode: expected at most {self.episodes}, or more --episodes')
