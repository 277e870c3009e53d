"""What a recording looks like while it runs: a live table on a terminal, a line now and then elsewhere."""

from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.table import Table

from apt_policy.core.stream_spec import Need
from apt_recorder.recorder import Recorder
from apt_recorder.sink import Sink

_LINE_EVERY_S = 5.0
_MIB = 2**20


class Show:
    """Shows one recording; use it as a context manager."""

    def __init__(self, recorder: Recorder, sink: Sink, console: Console, *, hint: str) -> None:
        """``hint``: which keys do what, empty without a keyboard."""
        self._recorder, self._sink, self._console, self._hint = recorder, sink, console, hint
        self._live = Live(console=console, refresh_per_second=4, auto_refresh=False) if console.is_terminal else None
        self._line_s = 0.0

    def __enter__(self) -> 'Show':
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, elapsed_s: float) -> None:
        """Show the present state."""
        if self._live is not None:
            self._live.update(self.table(elapsed_s), refresh=True)
        elif elapsed_s - self._line_s >= _LINE_EVERY_S:
            self._line_s = elapsed_s
            self._console.print(self._headline(elapsed_s), markup=False, highlight=False, soft_wrap=True)

    def table(self, elapsed_s: float) -> Table:
        """Every stream with its figures."""
        table = Table(title=self._headline(elapsed_s), caption=self._hint or None)
        for column in ('stream', 'rate', 'expected', 'received', 'lost', 'dropped', 'state'):
            table.add_column(column, justify='left' if column in ('stream', 'state') else 'right')
        for watch in self._recorder.watches:
            if watch.spec.need.recorder is Need.OPTIONAL and not watch.received:
                continue
            now_ns = self._recorder.watch_ns(watch)
            topic = self._recorder.resolve_topic_name(watch.spec.topic)
            died = watch.died(now_ns)
            table.add_row(
                watch.spec.label, f'{watch.rate_hz(now_ns):.1f}',
                f'{watch.spec.rate_hz:g}' if watch.spec.rate_hz else '', str(watch.received),
                str(watch.lost or ''), str(self._sink.dropped[topic] or ''),
                f'SILENT {watch.silent_s(now_ns):.0f} s' if died else '', style='bold red' if died else None)
        return table

    def _headline(self, elapsed_s: float) -> str:
        marker, bag = self._recorder.marker, self._sink.bag
        episode = 'EPISODE OPEN' if marker.open else 'between episodes'
        lost, dropped = sum(w.lost for w in self._recorder.watches), sum(self._sink.dropped.values())
        return (f'apt-record: {elapsed_s:.0f} s, {sum(self._sink.written.values())} messages, '
                f'{bag.bytes / _MIB:.0f} MiB, {bag.free_bytes / _MIB / 1024:.1f} GiB free, lost {lost}, '
                f'dropped {dropped}; {marker.episodes} episodes, {episode}')


def speaker(console: Console) -> Callable[[str], None]:
    """Says loudly what goes wrong: in red, with the terminal's bell."""
    def say(text: str) -> None:
        console.print(f'apt-record: {text}', style='bold red', markup=False, highlight=False, soft_wrap=True)
        if console.is_terminal:
            console.bell()
    return say
