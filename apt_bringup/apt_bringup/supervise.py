"""Processes of a graph: started in their own groups, heard line by line, stopped in order.

Policy for who stops first is the caller's; this module makes sure that nobody survives.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TextIO

_COLOURS = ('36', '33', '35', '32', '34')
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a process may take to end after each signal [s]."""

    interrupt_s: float = 8.0
    terminate_s: float = 4.0


class Process:
    """One child with its own process group; its output appears line by line behind its name."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], *,
                 colour: int = 0, out: TextIO = sys.stdout) -> None:
        """
        Raises:
            FileNotFoundError: the executable does not exist.
        """
        self.name = name
        paint = out.isatty() and 'NO_COLOR' not in os.environ
        self._prefix = f'\033[{_COLOURS[colour % len(_COLOURS)]}m[{name}]\033[0m ' if paint else f'[{name}] '
        self._out = out
        libc = ctypes.CDLL(None)
        self._child = subprocess.Popen(
            list(command), env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors='replace', bufsize=1, start_new_session=True,
            # Should this process be killed outright, its children are asked to end all the same.
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT))
        self._reader = threading.Thread(target=self._relay, args=(self._child.stdout,), daemon=True)
        self._reader.start()

    @property
    def exit_status(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._child.poll()

    def interrupt(self) -> None:
        """Ask it to end, as Ctrl-C does."""
        self._signal(signal.SIGINT)

    def stop(self, patience: Patience) -> int:
        """End it: SIGINT, then SIGTERM, then SIGKILL to its whole group; returns its exit status."""
        for number, wait_s in ((signal.SIGINT, patience.interrupt_s), (signal.SIGTERM, patience.terminate_s)):
            if self.exit_status is None:
                self._signal(number)
                self._wait(wait_s)
        # Also after a clean end: whatever the child left behind in its group goes with it.
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        status = self._child.wait()
        self._reader.join(timeout=1.0)
        return status

    def _signal(self, number: int) -> None:
        if self.exit_status is None:
            # To the node alone: it knows how to end its own helpers.
            self._child.send_signal(number)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.exit_status is None and time.monotonic() < deadline:
            time.sleep(0.02)

    def _relay(self, pipe: IO[str] | None) -> None:
        assert pipe is not None
        for line in pipe:
            self._out.write(self._prefix + line)
            self._out.flush()
