"""``apt-convert``: recordings, or LeRobot datasets, to episode files.

Parses flags, chooses source and executor, shows what happens and answers with an exit status.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import cv2
from rich.console import Console

from apt_policy.core.contract import ContractError, load_contract
from apt_policy.core.stop import StopRequest, stop_requests
from apt_training.convert.executors import ProgressCallback, run_in_pool, run_in_process, run_on_ray
from apt_training.convert.job_runner import ConversionResult, OutputConfig
from apt_training.convert.report import print_summary, show_progress
from apt_training.convert.source import ConversionJob, ConvertError, EpisodeSource
from apt_training.episodes.episode import ImageStorage
from apt_training.inspect.contact_sheet import draw_contact_sheet

SHEET = 'contact_sheet.png'
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""
_PLAIN_WIDTH = 150
_SOURCES = {'rosbag': 'apt_training.convert.rosbag.source', 'lerobot': 'apt_training.convert.lerobot.source'}


def main(words: Sequence[str] | None = None) -> int:
    """Run it.

    Returns:
        0 if everything was converted, 1 if an input failed, is damaged or gave no episode, 2 for arguments
        that cannot be used, 130 when interrupted: the same command then goes on.
    """
    console = _console()
    arguments = _parse(list(sys.argv[1:] if words is None else words))
    cv2.setNumThreads(1)
    outcomes: list[ConversionResult] = []
    try:
        contract = load_contract(arguments.contract)
        units = list(_source(arguments.source).list_jobs(arguments, contract))
        output = OutputConfig(folder=arguments.out, storage=ImageStorage(arguments.storage),
                              jpeg_quality=arguments.jpeg_quality, force=arguments.force)
        output.folder.mkdir(parents=True, exist_ok=True)
        with _stopping(waits=_jobs(arguments, units) <= 1) as stop, show_progress(
                console, len(units)) as progress:
            def update(name: str, share: float, frames: int) -> None:
                _heed(stop)
                progress.update(name, share, frames)

            for outcome in _outcomes(arguments, units, output, update):
                outcomes.append(outcome)
                _heed(stop)
    except (ConvertError, ContractError) as error:
        console.print(f'error: {error}', style='bold red', markup=False, soft_wrap=True)
        return 2
    except OSError as error:
        console.print(f'error: {error.filename or arguments.out}: {error.strerror or error}', style='bold red',
                      markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        print_summary(console, outcomes, quiet=True)
        console.print('interrupted; whole episodes are kept, and the same command goes on', style='bold')
        return INTERRUPTED
    outcomes.sort(key=lambda outcome: [unit.name for unit in units].index(outcome.name))
    print_summary(console, outcomes, quiet=arguments.quiet)
    _draw_sheet(console, arguments, outcomes)
    return _status(units, outcomes)


def _console() -> Console:
    terminal = Console(stderr=True)
    # Into a file or a pipe tables go whole.
    return terminal if terminal.is_terminal else Console(stderr=True, width=_PLAIN_WIDTH)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='apt-convert', description='Recordings to episodes that a policy is trained on.',
        epilog='What each choice means: docs/convert.md')
    parser.add_argument('inputs', nargs='+', type=Path, metavar='INPUT',
                        help='rosbag2 folders, .mcap or .db3 files, folders of bags; with --from lerobot its datasets')
    parser.add_argument('--contract', required=True, type=Path, help="the robot's contract, such as config/aloha.yaml")
    parser.add_argument('--out', required=True, type=Path, help='folder for the episodes')
    parser.add_argument('--from', dest='source', choices=list(_SOURCES), default='rosbag', help='kind of input')
    parser.add_argument('--storage', choices=[one.value for one in ImageStorage], default=ImageStorage.JPEG.value,
                        help='how images are kept; default %(default)s')
    parser.add_argument('--jpeg-quality', type=int, default=95, metavar='1-100', help='default %(default)s')
    parser.add_argument('--force', action='store_true', help='convert again what is there')
    parser.add_argument('--jobs', type=int, default=0, metavar='N', help='processes; default: one per processor')
    parser.add_argument('--executor', choices=['processes', 'ray'], default='processes',
                        help='where the work is done; ray: on a cluster that sees the same files')
    parser.add_argument('--ray-address', metavar='ADDRESS', help='of the cluster; default: RAY_ADDRESS, else one here')
    parser.add_argument('--no-sheet', action='store_true', help=f'do not draw {SHEET}')
    parser.add_argument('--quiet', action='store_true', help='no table of streams per input')
    # Only the chosen source's flags, so that the other need not be importable.
    early = argparse.ArgumentParser(add_help=False)
    early.add_argument('--from', dest='source', choices=list(_SOURCES), default='rosbag')
    _source(early.parse_known_args(words)[0].source).add_arguments(parser)
    arguments = parser.parse_args(words)
    if arguments.jobs < 0:
        parser.error(f'--jobs is {arguments.jobs}; expected 0 (one per processor) or more')
    if not 1 <= arguments.jpeg_quality <= 100:
        parser.error(f'--jpeg-quality is {arguments.jpeg_quality}; expected 1 to 100')
    return arguments


def _source(name: str) -> EpisodeSource:
    return cast(EpisodeSource, importlib.import_module(_SOURCES[name]))


def _outcomes(arguments: argparse.Namespace, units: Sequence[ConversionJob], output: OutputConfig,
              progress: ProgressCallback) -> Iterator[ConversionResult]:
    if arguments.executor == 'ray':
        run: Any = partial(run_on_ray, address=arguments.ray_address, workers=arguments.jobs or None)
    else:
        jobs = _jobs(arguments, units)
        run = run_in_process if jobs <= 1 else partial(run_in_pool, workers=jobs)
    return cast(Iterator[ConversionResult], run(units, output, progress))


def _jobs(arguments: argparse.Namespace, units: Sequence[ConversionJob]) -> int:
    """How many processes work at once, this one among them if there is one only; Ray's are not counted."""
    if arguments.executor == 'ray':
        return len(units) + 1
    return min(arguments.jobs or len(os.sched_getaffinity(0)), len(units))


def _draw_sheet(console: Console, arguments: argparse.Namespace, outcomes: Sequence[ConversionResult]) -> None:
    files = [arguments.out / name for outcome in outcomes for name in outcome.files]
    if arguments.no_sheet or not files:
        return
    try:
        draw_contact_sheet(files, arguments.out / SHEET)
    # A picture is no reason to call the conversion failed.
    except (OSError, ValueError) as error:
        console.print(f'note: no {SHEET}: {error}', style='yellow', markup=False, soft_wrap=True)
        return
    console.print(f'{len(files)} episodes in {arguments.out}; see {arguments.out / SHEET}', markup=False,
                  soft_wrap=True)


def _status(units: Sequence[ConversionJob], outcomes: Sequence[ConversionResult]) -> int:
    whole = len(outcomes) == len(units) and not any(outcome.failed for outcome in outcomes)
    return 0 if whole and any(outcome.files for outcome in outcomes) else 1


def _heed(stop: StopRequest) -> None:
    if stop.is_set():
        raise KeyboardInterrupt


@contextmanager
def _stopping(*, waits: bool) -> Iterator[StopRequest]:
    """Have signals end the work inside.

    Args:
        waits: until the request is looked at, since a file that is just being opened must not be left behind; who
            asks twice does not wait.
    """
    with stop_requests() as stop:
        def interrupt() -> None:
            if stop.count > 1 or not waits:
                raise KeyboardInterrupt

        stop.on_request = interrupt
        yield stop


if __name__ == '__main__':
    sys.exit(main())
