"""Inspection of episode files: a summary in the terminal, pictures and a rerun recording on request."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from apt_policy.console import USAGE_STATUS, error_text, print_error
from apt_training.episodes.episode import EpisodeError
from apt_training.episodes.files import EpisodeFilesError, find_episodes
from apt_training.episodes.read import Episode
from apt_training.inspect.arguments import InspectArguments
from apt_training.inspect.contact_sheet import draw_contact_sheet
from apt_training.inspect.episode_figure import draw_episode
from apt_training.inspect.rerun_export import RerunError, write_rerun
from apt_training.inspect.summary import summarize_episode
from apt_training.inspect.terminal import print_episode_summary, print_frame


def inspect_files(arguments: InspectArguments) -> int:
    """Show each file; return 0, or 2 when one cannot be read.

    Raises:
        EpisodeFilesError: there is no episode, or a flag for one episode is given with several.
        OSError: the contact sheet cannot be written.
    """
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    files = find_episodes(arguments.files)
    _require_one(arguments, files)
    if arguments.sheet is not None:
        draw_contact_sheet(files, arguments.sheet)
        console.print(Text(f'wrote {arguments.sheet}'))
        return 0
    status = 0
    for file in files:
        try:
            with Episode(file, video_root=arguments.video_root) as episode:
                _inspect(episode, arguments, console)
        except (EpisodeError, RerunError, OSError) as error:
            print_error(errors, f'apt-inspect: {error_text(error)}')
            status = USAGE_STATUS
    return status


def _require_one(arguments: InspectArguments, files: Sequence[Path]) -> None:
    for name in ('png', 'rerun', 'show'):
        if getattr(arguments, name) is not None and len(files) != 1:
            raise EpisodeFilesError(f'--{name} is for one episode, got {len(files)}; '
                               'for a picture of several use --sheet')


def _inspect(episode: Episode, arguments: InspectArguments, console: Console) -> None:
    if arguments.show is not None:
        print_frame(episode, arguments.show, console)
    else:
        print_episode_summary(summarize_episode(episode), console)
    if arguments.png is not None:
        draw_episode(episode, arguments.png)
        console.print(Text(f'wrote {arguments.png}'))
    if arguments.rerun is not None:
        write_rerun(episode, arguments.rerun)
        console.print(Text(f'wrote {arguments.rerun}: open it with: rerun {arguments.rerun}'), soft_wrap=True)
