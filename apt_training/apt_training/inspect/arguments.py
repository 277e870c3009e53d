"""Command line of ``apt-inspect``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from apt_policy.cli import flag, require_words


@dataclass(frozen=True, kw_only=True)
class InspectArguments:
    """Show what is in episode files: a summary in the terminal, pictures and a rerun recording on request."""

    files: Annotated[tuple[Path, ...], Positional, flag('FILE [FILE ...]', default='')] = ()
    """Episode files, or folders of them."""
    show: Annotated[int | None, flag('N', default='')] = None
    """Print the values of frame N instead of a summary."""
    png: Annotated[Path | None, flag('FILE', default='')] = None
    """Draw the episode: frames, paths, grippers."""
    sheet: Annotated[Path | None, flag('FILE', default='')] = None
    """Draw a contact sheet of all files instead."""
    rerun: Annotated[Path | None, flag('FILE.rrd', default='')] = None
    """Write a recording for the rerun viewer."""
    video_root: Annotated[Path | None, flag('FOLDER', default='the folder of the file')] = None
    """Folder that names of videos are relative to."""

    def __post_init__(self) -> None:
        """Check that there is a file.

        Raises:
            UsageError: there is none.
        """
        require_words('FILE', self.files)
