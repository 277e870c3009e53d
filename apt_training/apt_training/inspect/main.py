"""``apt-inspect``: what is in an episode file.

Without options a summary in the terminal; pictures and a rerun recording on request.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from apt_policy.console import print_error
from apt_training.episodes.episode import EpisodeError
from apt_training.episodes.read import Episode
from apt_training.inspect.examine import examine
from apt_training.inspect.files import EpisodeFilesError, find_episodes
from apt_training.inspect.picture import draw_episode
from apt_training.inspect.rerun_export import RerunError, write_rerun
from apt_training.inspect.sheet import draw_contact_sheet
from apt_training.inspect.terminal import print_examination, print_frame


def main(words: Sequence[str] | None = None) -> int:
    """Run it.

    Returns:
        0; 2 when a file cannot be read or written, or arguments cannot be used.
    """
    options = _options(words)
    console = Console(highlight=False)
    complaints = Console(stderr=True, highlight=False)
    status = 0
    try:
        files = find_episodes(options.files)
        _require_one(options, files)
        if options.sheet is not None:
            draw_contact_sheet(files, options.sheet)
            console.print(Text(f'wrote {options.sheet}'))
            return status
    except (EpisodeFilesError, OSError) as error:
        print_error(complaints, f'apt-inspect: {error}')
        return 2
    for file in files:
        try:
            with Episode(file, video_root=options.video_root) as episode:
                _inspect(episode, options, console)
        except (EpisodeError, RerunError, OSError) as error:
            print_error(complaints, f'apt-inspect: {error}')
            status = 2
    return status


def _require_one(options: argparse.Namespace, files: Sequence[Path]) -> None:
    for name in ('png', 'rerun', 'show'):
        if getattr(options, name) is not None and len(files) != 1:
            raise EpisodeFilesError(f'--{name} is for one episode, got {len(files)}; '
                               'for a picture of several use --sheet')


def _inspect(episode: Episode, options: argparse.Namespace, console: Console) -> None:
    if options.show is not None:
        print_frame(episode, options.show, console)
    else:
        print_examination(examine(episode), console)
    if options.png is not None:
        draw_episode(episode, options.png)
        console.print(Text(f'wrote {options.png}'))
    if options.rerun is not None:
        write_rerun(episode, options.rerun)
        console.print(Text(f'wrote {options.rerun}: open it with: rerun {options.rerun}'), soft_wrap=True)


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='apt-inspect', description='Show what is in episode files.')
    parser.add_argument('files', nargs='+', type=Path, metavar='FILE', help='episode files, or folders of them')
    parser.add_argument('--show', type=int, metavar='N', help='print the values of frame N instead of a summary')
    parser.add_argument('--png', type=Path, metavar='OUT', help='draw the episode: frames, paths, grippers')
    parser.add_argument('--sheet', type=Path, metavar='OUT', help='draw a contact sheet of all files instead')
    parser.add_argument('--rerun', type=Path, metavar='OUT.rrd', help='write a recording for the rerun viewer')
    parser.add_argument('--video-root', type=Path, metavar='DIR',
                        help='folder that names of videos are relative to; by default that of the file')
    return parser.parse_args(words)


if __name__ == '__main__':
    sys.exit(main())
