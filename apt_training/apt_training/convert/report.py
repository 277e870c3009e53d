"""Terminal output of ``apt-convert``: progress, and a summary at the end."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from apt_training.convert.job_runner import ConversionResult
from apt_training.convert.source import StreamStats

_MAX_DETAILS = 5


class _FrameRate(ProgressColumn):
    """Column with the number of frames, and frames per second."""

    def render(self, task: Task) -> Text:
        frames = sum(task.fields['frames'].values())
        elapsed = task.elapsed or 0.0
        return Text(f'{frames} frames, {frames / elapsed:.0f}/s' if elapsed > 0.5 else f'{frames} frames')


class ConversionProgress:
    """Progress bar over all jobs."""

    def __init__(self, progress: Progress, count: int) -> None:
        """Add a task for ``count`` jobs to ``progress``."""
        self._progress, self._count = progress, count
        self._shares: dict[str, float] = {}
        self._frames: dict[str, int] = {}
        self._task = progress.add_task('converting', total=count, frames=self._frames, done='')

    def update(self, name: str, share: float, frames: int) -> None:
        """Update the progress of a job.

        Args:
            name: name of the job.
            share: fraction of its input that was read.
            frames: number of its frames.
        """
        self._shares[name], self._frames[name] = share, frames
        done = sum(1 for one in self._shares.values() if one >= 1.0)
        self._progress.update(self._task, completed=sum(self._shares.values()), done=f'{done} of {self._count}')


@contextmanager
def show_progress(console: Console, count: int) -> Iterator[ConversionProgress]:
    """Show a bar with rate and remaining time within the block, if the console is a terminal."""
    columns = (TextColumn('{task.description}'), BarColumn(), TextColumn('{task.fields[done]}'), _FrameRate(),
               TextColumn('left'), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield ConversionProgress(progress, count)


def print_summary(console: Console, results: Sequence[ConversionResult], *, quiet: bool) -> None:
    """Print streams, episodes, notes, skipped episodes, and errors at the end."""
    if not quiet:
        for result in results:
            _print_streams(console, result)
    _print_jobs(console, results)
    for result in results:
        for note in result.report.notes:
            console.print(f'note: {result.name}: {note}', style='yellow', markup=False, soft_wrap=True)
        shown = [one for one in result.refused if one.kind != 'discarded']
        for skipped in shown[:_MAX_DETAILS]:
            console.print(f'left out: {skipped.detail}', style='yellow', markup=False, soft_wrap=True)
        if len(shown) > _MAX_DETAILS:
            console.print(f'left out: {result.name}: {len(shown) - _MAX_DETAILS} more', style='yellow', markup=False)
    for result in results:
        for problem in filter(None, (result.error, result.report.damage)):
            console.print(f'error: {problem}', style='bold red', markup=False, soft_wrap=True)


def _print_streams(console: Console, result: ConversionResult) -> None:
    if not result.report.streams:
        return
    reader = f', read by {result.report.read_by}' if result.report.read_by else ''
    table = Table(title=f'{result.name}: streams{reader}', title_justify='left', header_style='bold')
    table.add_column('stream')
    for heading in ('messages', 'rate', 'gaps', 'longest', 'age p50', 'age p95', 'dropped', 'frozen', 'clock'):
        table.add_column(heading, justify='right')
    for line in result.report.streams:
        table.add_row(*_stream_cells(line))
    console.print(table)


def _stream_cells(line: StreamStats) -> tuple[str, ...]:
    ages = ('-' if math.isnan(age) else f'{age * 1e3:.0f} ms' for age in (line.age_p50_s, line.age_p95_s))
    return (line.stream, str(line.messages), f'{line.rate_hz:.1f} Hz', str(line.gaps), f'{line.longest_gap_s:.2f} s',
            *ages, str(line.drops), str(line.frozen), line.time_base)


def _print_jobs(console: Console, results: Sequence[ConversionResult]) -> None:
    table = Table(title='conversion', title_justify='left', header_style='bold')
    table.add_column('input')
    for heading in ('episodes', 'written now', 'frames', 'left out', 'dropped frames', 'outcome'):
        table.add_column(heading, justify='right')
    for result in results:
        left_out = Counter(one.kind for one in result.refused)
        table.add_row(result.name, str(len(result.files)), str(result.written), str(result.frames),
                      ', '.join(f'{count} {kind}' for kind, count in left_out.items()) or '0',
                      str(sum(result.report.details.values())),
                      'failed' if result.error else 'damaged' if result.report.damage else 'ok')
    console.print(table)
