"""Child processes in groups of their own: their output line by line, and an end that leaves no process behind.

The caller decides in which order processes stop.
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
_PR_SET_PDEATHSIG = 1  # Of <linux/prctl.h>.


@dataclass(frozen=True, kw_only=True)
class StopTimeouts:
    """Time that a process has to end after each signal [s]."""

    interrupt_s: float = 8.0
    terminate_s: float = 4.0


class ChildProcess:
    """Child with its own process group, whose output appears line by line behind its name."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], *,
                 colour: int = 0, out: TextIO = sys.stdout) -> None:
        """Start the process.

        Args:
            name: name in front of each line of output.
            command: executable and its arguments.
            environment: environment of the process.
            colour: number of the name's colour on a terminal.
            out: output.

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
            # If this process is killed outright, its children are told to end all the same.
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT))
        self._reader = threading.Thread(target=self._relay, args=(self._child.stdout,), daemon=True)
        self._reader.start()

    @property
    def exit_status(self) -> int | None:
        """Exit status; None while the process runs, negative for the signal that ended it."""
        return self._child.poll()

    def interrupt(self) -> None:
        """Send SIGINT, as Ctrl-C does."""
        self._signal(signal.SIGINT)

    def stop(self, timeouts: StopTimeouts) -> int:
        """End the process with SIGINT, then SIGTERM, then SIGKILL to its whole group, and return its exit status."""
        for number, wait_s in ((signal.SIGINT, timeouts.interrupt_s), (signal.SIGTERM, timeouts.terminate_s)):
            if self.exit_status is None:
                self._signal(number)
                self._wait(wait_s)
        # Also after a clean end, for processes that the child left behind in its group.
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        status = self._child.wait()
        self._reader.join(timeout=1.0)
        return status

    def _signal(self, number: int) -> None:
        if self.exit_status is None:
            # To the node alone, which ends its own children.
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
