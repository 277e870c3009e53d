"""Command line of ``apt-record``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from apt_policy.cli import UsageError, flag, require_at_least


@dataclass(frozen=True, kw_only=True)
class RecordArguments:
    """Record every stream of a robot into a rosbag2 bag."""

    bag: Annotated[Path | None, Positional, flag('BAG', default='apt_ and the time')] = None
    """Folder to write."""
    contract: Annotated[Path | None, flag('FILE', default='the installed aloha.yaml')] = None
    """Contract of the robot."""
    storage: Literal['mcap', 'sqlite3'] = 'mcap'
    """File format."""
    compress: Literal['none', 'chunk', 'message'] = 'none'
    """Compression with zstd: of chunks of about 1 MiB (mcap), or of each message."""
    max_size: Annotated[float, flag('MIB')] = 0.0
    """Begin a new file beyond this size; 0 for one file."""
    split: Annotated[float, flag('S')] = 0.0
    """Begin a new file after this time; 0 for one file."""
    duration: Annotated[float, flag('S')] = 0.0
    """End after this time on the robot's clock; 0 records until stopped."""
    episodes: Annotated[int, flag('N')] = 0
    """End after this number of episodes that are kept; 0 records until stopped."""
    episode_per_prompt: bool = False
    """Begin an episode with each new instruction."""
    without: Annotated[tuple[str, ...], flag('STREAM [STREAM ...]', default='')] = ()
    """Leave out streams, cameras or arms, by name."""
    stamp_on_receipt: Annotated[tuple[str, ...], flag('NAME [NAME ...]', default='')] = ()
    """Cameras and arms whose stamps are wrong: the age of their messages is not checked."""
    min_rate: Annotated[float, flag('SHARE')] = 0.8
    """Share of the contract's rate below which a stream is too slow."""
    wait: Annotated[float, flag('S')] = 10.0
    """Time for all streams to appear."""
    min_free: Annotated[float, flag('MIB')] = 64.0
    """End while the disk still has this much room."""
    queue: Annotated[float, flag('MIB')] = 512.0
    """Memory for messages that wait for the disk."""
    recover: bool = False
    """Repair the bag of a killed recording, and end."""

    def __post_init__(self) -> None:
        """Check numbers, and that a bag to repair is named.

        Raises:
            UsageError: a value cannot be used.
        """
        require_at_least(0, max_size=self.max_size, split=self.split, min_free=self.min_free, duration=self.duration,
                         episodes=self.episodes, wait=self.wait, queue=self.queue)
        if self.recover and self.bag is None:
            raise UsageError('--recover needs the folder of the bag')
