"""Interactive shell of ``apt-operate``: one request per line.

The policy is discovered once, so that a stop needs no program start. An empty line, or ``disable``, is not
queued: earlier lines are dropped, and a request that still waits for its response is abandoned. An idle shell
uses no processor time.
"""

import difflib
import os
import select
from collections import deque
from collections.abc import Callable

from apt_policy.ros.operator_client import VERBS, Interrupted, OperateError, Operator

WELCOME = ('Enter alone stops the arms (disable). Verbs: ' + ', '.join(VERBS) + ', help.\n'
           'q or Ctrl-D leaves the policy as it is; Ctrl-C stops the arms, then leaves.')
_LEAVE = ('q', 'quit', 'exit')
_HELP = ('help', '?')
_BLOCK = 4096
_PUNCTUATION = '.,:;!?'


class LineReader:
    """Non-blocking reader of lines from a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        """Read from ``descriptor``, which must have no other reader."""
        self._descriptor = descriptor
        self._rest = b''
        self.lines: deque[str] = deque()
        """Received lines, stripped."""
        self.ended = False
        """True after the end of the input."""

    def read(self, *, wait: bool) -> None:
        """Read all available input; with ``wait``, wait until there is some."""
        while not self.ended and select.select([self._descriptor], [], [], None if wait else 0.0)[0]:
            wait = False
            block = os.read(self._descriptor, _BLOCK)
            *lines, self._rest = (self._rest + block).split(b'\n')
            if not block:
                self.ended = True
                lines = [self._rest] if self._rest else []
            self.lines.extend(line.decode(errors='replace').strip() for line in lines)

    def drop_until(self, is_wanted: Callable[[str], bool]) -> bool:
        """Drop all lines up to the last one that is wanted; return False if there is none."""
        last = max((place for place, line in enumerate(self.lines, 1) if is_wanted(line)), default=0)
        for _ in range(last):
            self.lines.popleft()
        return last > 0


class OperatorShell:
    """Shell that performs one request per line."""

    def __init__(self, operator: Operator, *, descriptor: int, prompt: str, write: Callable[[str], None]) -> None:
        """Create the shell.

        Args:
            operator: client of the policy.
            descriptor: file descriptor of the input.
            prompt: text written before each line is read; empty for none.
            write: receiver of all output.
        """
        self._operator = operator
        self._reader = LineReader(descriptor)
        self._prompt = prompt
        self._write = write
        self._failed = False
        operator.interrupted = self._stop_is_wanted

    def run(self) -> int:
        """Perform requests until the end; return 0 if the last one succeeded, 1 if it failed, 130 after Ctrl-C."""
        self._write(f'{WELCOME}\n')
        self._operator.meet()
        try:
            while (line := self._next()) is not None and line not in _LEAVE:
                self._obey(line)
        except KeyboardInterrupt:
            self._write('\n')
            self._stop()
            return 130
        return 1 if self._failed else 0

    def _next(self) -> str | None:
        """Return the next line, stopping lines first; None at the end."""
        self._write(self._prompt)
        self._reader.read(wait=not self._reader.lines)
        if self._reader.drop_until(means_stop):
            return ''
        return self._reader.lines.popleft() if self._reader.lines else None

    def _obey(self, line: str) -> None:
        verb, _, text = line.partition(' ')
        if means_stop(line):
            self._stop()
        elif verb in _HELP:
            self._write(f'{WELCOME}\n' + ''.join(f'  {name:9}{what}\n' for name, what in VERBS.items()))
        elif verb not in VERBS:
            near = difflib.get_close_matches(verb, VERBS, n=1)
            self._fail(f'there is no verb {verb!r}; ' + (f'did you mean {near[0]!r}?' if near else
                                                         f'expected one of {", ".join(VERBS)}'))
        elif bool(text) != (verb == 'prompt'):
            self._fail('prompt needs an instruction: prompt pick up the red cube' if not text else
                       f'{verb} takes no argument, got {text.strip()!r}')
        else:
            self._ask(verb, _unquoted(text.strip()))

    def _ask(self, verb: str, text: str) -> None:
        try:
            self._done(self._operator.perform(verb, text))
        except OperateError as error:
            self._fail(str(error))
        except Interrupted:
            self._write(f'{verb} was interrupted by a stop\n')
            self._stop()

    def _stop(self) -> None:
        # Further stopping lines ask for the same and are dropped.
        self._operator.interrupted = self._more_stops
        try:
            self._done(self._operator.enable(False))
        except OperateError as error:
            self._fail(str(error))
        finally:
            self._operator.interrupted = self._stop_is_wanted

    def _stop_is_wanted(self) -> bool:
        self._reader.read(wait=False)
        return self._reader.drop_until(means_stop)

    def _more_stops(self) -> bool:
        self._stop_is_wanted()
        return False

    def _done(self, words: str) -> None:
        self._failed = False
        self._write(f'{words}\n')

    def _fail(self, words: str) -> None:
        self._failed = True
        self._write(f'{words}\n')


def means_stop(line: str) -> bool:
    """Return whether a line stops the arms: an empty one, or one whose first word is nearest to ``disable``.

    A misspelled "DISABEL!" must stop the arms too.
    """
    words = line.strip(_PUNCTUATION + ' ').casefold().split()
    first = words[0].strip(_PUNCTUATION) if words else ''
    return not first or difflib.get_close_matches(first, VERBS, n=1) == ['disable']


def _unquoted(text: str) -> str:
    """Remove surrounding quotes."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in '\'"' else text
