"""What ``apt-convert`` shows: progress while it works, and a summary at its end.

Takes outcomes; decides nothing.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from apt_training.convert.source import StreamLine
from apt_training.convert.write_unit import UnitOutcome

_MOST_DETAILS = 5


class _FrameRate(ProgressColumn):
    """Frames so far, and per second."""

    def render(self, task: Task) -> Text:
        frames = sum(task.fields['frames'].values())
        elapsed = task.elapsed or 0.0
        return Text(f'{frames} frames, {frames / elapsed:.0f}/s' if elapsed > 0.5 else f'{frames} frames')


class ConvertProgress:
    """A bar over all units."""

    def __init__(self, progress: Progress, count: int) -> None:
        """``count`` units are to come."""
        self._progress, self._count = progress, count
        self._shares: dict[str, float] = {}
        self._frames: dict[str, int] = {}
        self._task = progress.add_task('converting', total=count, frames=self._frames, done='')

    def update(self, name: str, share: float, frames: int) -> None:
        """A unit got on."""
        self._shares[name], self._frames[name] = share, frames
        done = sum(1 for one in self._shares.values() if one >= 1.0)
        self._progress.update(self._task, completed=sum(self._shares.values()), done=f'{done} of {self._count}')


@contextmanager
def showing_progress(console: Console, count: int) -> Iterator[ConvertProgress]:
    """A bar with rate and remaining time; silent where nobody looks at a terminal."""
    columns = (TextColumn('{task.description}'), BarColumn(), TextColumn('{task.fields[done]}'), _FrameRate(),
               TextColumn('left'), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield ConvertProgress(progress, count)


def show_summary(console: Console, outcomes: Sequence[UnitOutcome], *, quiet: bool) -> None:
    """Everything worth knowing: episodes, streams, what was left out, and errors at the very end."""
    if not quiet:
        for outcome in outcomes:
            _show_streams(console, outcome)
    _show_units(console, outcomes)
    for outcome in outcomes:
        for note in outcome.report.notes:
            console.print(f'note: {outcome.name}: {note}', style='yellow', markup=False, soft_wrap=True)
        shown = [one for one in outcome.refused if one.kind != 'discarded']
        for refused in shown[:_MOST_DETAILS]:
            console.print(f'left out: {refused.detail}', style='yellow', markup=False, soft_wrap=True)
        if len(shown) > _MOST_DETAILS:
            console.print(f'left out: {outcome.name}: {len(shown) - _MOST_DETAILS} more', style='yellow', markup=False)
    for outcome in outcomes:
        for problem in filter(None, (outcome.error, outcome.report.damage)):
            console.print(f'error: {problem}', style='bold red', markup=False, soft_wrap=True)


def _show_streams(console: Console, outcome: UnitOutcome) -> None:
    if not outcome.report.streams:
        return
    reader = f', read by {outcome.report.read_by}' if outcome.report.read_by else ''
    table = Table(title=f'{outcome.name}: streams{reader}', title_justify='left', header_style='bold')
    table.add_column('stream')
    for heading in ('messages', 'rate', 'gaps', 'longest', 'age p50', 'age p95', 'dropped', 'frozen', 'clock'):
        table.add_column(heading, justify='right')
    for line in outcome.report.streams:
        table.add_row(*_stream_cells(line))
    console.print(table)


def _stream_cells(line: StreamLine) -> tuple[str, ...]:
    ages = ('-' if math.isnan(age) else f'{age * 1e3:.0f} ms' for age in (line.age_p50_s, line.age_p95_s))
    return (line.stream, str(line.messages), f'{line.rate_hz:.1f} Hz', str(line.gaps), f'{line.longest_gap_s:.2f} s',
            *ages, str(line.drops), str(line.frozen), line.time_base)


def _show_units(console: Console, outcomes: Sequence[UnitOutcome]) -> None:
    table = Table(title='conversion', title_justify='left', header_style='bold')
    table.add_column('input')
    for heading in ('episodes', 'written now', 'frames', 'left out', 'dropped frames', 'outcome'):
        table.add_column(heading, justify='right')
    for outcome in outcomes:
        left_out = Counter(one.kind for one in outcome.refused)
        table.add_row(outcome.name, str(len(outcome.files)), str(outcome.written), str(outcome.frames),
                      ', '.join(f'{count} {kind}' for kind, count in left_out.items()) or '0',
                      str(sum(outcome.report.details.values())),
                      'failed' if outcome.error else 'damaged' if outcome.report.damage else 'ok')
    console.print(table)
