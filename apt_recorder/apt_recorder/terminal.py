"""Terminal of a recording: a live table, or a status line now and then without a terminal, and keys."""

import os
import select
import sys
import termios
import tty
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from apt_policy.core.stream_spec import Need
from apt_recorder.recorder import Recorder
from apt_recorder.writer_thread import WriterThread

_LINE_PERIOD_S = 5.0
_MIB = 2**20


class RecordingDisplay:
    """Live view of one recording; a context manager."""

    def __init__(self, recorder: Recorder, writer: WriterThread, console: Console, *, hint: str) -> None:
        """Show nothing yet.

        Args:
            recorder: the recorder.
            writer: its writer thread.
            console: console to print to.
            hint: caption about keys; empty without a keyboard.
        """
        self._recorder, self._writer, self._console, self._hint = recorder, writer, console, hint
        self._live = Live(console=console, refresh_per_second=4, auto_refresh=False) if console.is_terminal else None
        self._line_s = 0.0

    def __enter__(self) -> 'RecordingDisplay':
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, elapsed_s: float) -> None:
        """Show the present state.

        Args:
            elapsed_s: time since the beginning of the recording [s].
        """
        if self._live is not None:
            self._live.update(self.table(elapsed_s), refresh=True)
        elif elapsed_s - self._line_s >= _LINE_PERIOD_S:
            self._line_s = elapsed_s
            self._console.print(self._headline(elapsed_s), markup=False, highlight=False, soft_wrap=True)

    def table(self, elapsed_s: float) -> Table:
        """Return a table with the state of every stream."""
        table = Table(title=self._headline(elapsed_s), caption=self._hint or None)
        for column in ('stream', 'rate', 'expected', 'received', 'lost', 'dropped', 'state'):
            table.add_column(column, justify='left' if column in ('stream', 'state') else 'right')
        for monitor in self._recorder.monitors:
            if monitor.spec.need.recorder is Need.OPTIONAL and not monitor.received:
                continue
            now_ns = self._recorder.monitor_ns(monitor)
            topic = self._recorder.resolve_topic_name(monitor.spec.topic)
            stopped = monitor.has_stopped(now_ns)
            table.add_row(
                monitor.spec.label, f'{monitor.rate_hz(now_ns):.1f}',
                f'{monitor.spec.rate_hz:g}' if monitor.spec.rate_hz else '', str(monitor.received),
                str(monitor.lost or ''), str(self._writer.dropped[topic] or ''),
                f'SILENT {monitor.silence_s(now_ns):.0f} s' if stopped else '', style='bold red' if stopped else None)
        return table

    def _headline(self, elapsed_s: float) -> str:
        marker, bag = self._recorder.marker, self._writer.bag
        episode = 'EPISODE OPEN' if marker.is_open else 'between episodes'
        lost, dropped = sum(monitor.lost for monitor in self._recorder.monitors), sum(self._writer.dropped.values())
        return (f'apt-record: {elapsed_s:.0f} s, {sum(self._writer.written.values())} messages, '
                f'{bag.bytes / _MIB:.0f} MiB, {bag.free_bytes / _MIB / 1024:.1f} GiB free, lost {lost}, '
                f'dropped {dropped}; {marker.episodes} episodes, {episode}')


class KeyReader:
    """Reader of single keys without Enter; a context manager that restores the terminal."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None

    @property
    def available(self) -> bool:
        """True if standard input is a terminal in the foreground."""
        return self._before is not None

    def __enter__(self) -> 'KeyReader':
        # Changing the terminal would stop a program in the background.
        if sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp():
            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)
            self._before = None

    def read_keys(self) -> str:
        """Return the keys that were pressed since the last call."""
        if self._before is None:
            return ''
        ready, _, _ = select.select([sys.stdin], [], [], 0.0)
        return os.read(sys.stdin.fileno(), 64).decode(errors='ignore') if ready else ''


def error_printer(console: Console) -> Callable[[str], None]:
    """Return a function that prints errors in red, with the terminal's bell."""
    def print_with_bell(text: str) -> None:
        console.print(f'apt-record: {text}', style='bold red', markup=False, highlight=False, soft_wrap=True)
        if console.is_terminal:
            console.bell()
    return print_with_bell
