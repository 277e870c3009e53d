"""Single keys from a terminal, without Enter; nothing where there is no terminal."""

import os
import select
import sys
import termios
import tty
from typing import Any


class Keys:
    """Use as a context manager: the terminal is itself again afterwards."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None

    @property
    def available(self) -> bool:
        """Whether somebody can press keys."""
        return self._before is not None

    def __enter__(self) -> 'Keys':
        # In the background, changing the terminal would stop the whole program.
        if sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp():
            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)
            self._before = None

    def pressed(self) -> str:
        """The keys since the last call."""
        if self._before is None:
            return ''
        ready, _, _ = select.select([sys.stdin], [], [], 0.0)
        return os.read(sys.stdin.fileno(), 64).decode(errors='ignore') if ready else ''
