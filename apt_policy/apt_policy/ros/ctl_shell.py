"""Interactive ``apt-ctl``: one request per line.

The policy is discovered once, so that stopping costs no start of a program. An empty line, or ``disable``, does not
queue behind other lines: what came before it is dropped, and a request that still waits for its answer is given up. An
idle shell uses no processor time.
"""

import difflib
import os
import select
from collections import deque
from collections.abc import Callable

from apt_policy.core.errors import did_you_mean
from apt_policy.ros.policy_client import VERBS, PolicyClient, RequestError, RequestPreempted

WELCOME = ('Enter alone stops the arms (disable). Verbs: ' + ', '.join(VERBS) + ', help.\n'
           'q or Ctrl-D leaves the policy as it is; Ctrl-C stops the arms, then leaves.')
_LEAVE_WORDS = ('q', 'quit', 'exit')
_HELP_WORDS = ('help', '?')
_BLOCK = 4096  # Bytes per read; lines are far shorter.
_PUNCTUATION = '.,:;!?'


class LineReader:
    """Read whole lines from a file descriptor without waiting for them."""

    def __init__(self, descriptor: int) -> None:
        """Read from ``descriptor``, which nothing else may read."""
        self._descriptor = descriptor
        self._rest = b''
        self.lines: deque[str] = deque()
        """Lines that were read and not taken yet, stripped."""
        self.ended = False
        """True if no more input comes."""

    def read(self, *, wait: bool) -> None:
        """Read what there is; ``wait`` blocks until there is something."""
        while not self.ended and select.select([self._descriptor], [], [], None if wait else 0.0)[0]:
            wait = False
            block = os.read(self._descriptor, _BLOCK)
            *lines, self._rest = (self._rest + block).split(b'\n')
            if not block:
                self.ended = True
                lines = [self._rest] if self._rest else []
            self.lines.extend(line.decode(errors='replace').strip() for line in lines)

    def drop_until(self, is_wanted: Callable[[str], bool]) -> bool:
        """Drop everything up to the last line that is wanted; return False if there is none."""
        last = max((place for place, line in enumerate(self.lines, 1) if is_wanted(line)), default=0)
        for _ in range(last):
            self.lines.popleft()
        return last > 0


class CtlShell:
    """Shell that carries out requests until it is told to leave."""

    def __init__(self, client: PolicyClient, *, descriptor: int, prompt: str, write: Callable[[str], None]) -> None:
        """Prepare the shell.

        Args:
            client: client of the policy.
            descriptor: file descriptor of the input.
            prompt: written whenever a line is expected; empty for none.
            write: function that prints text.
        """
        self._client = client
        self._reader = LineReader(descriptor)
        self._prompt = prompt
        self._write = write
        self._failed = False
        client.should_preempt = self._stop_is_wanted

    def run(self) -> int:
        """Run until the end; return 0 if the last request was done, 1 if it was not, 130 after Ctrl-C."""
        self._write(f'{WELCOME}\n')
        self._client.start_discovery()
        try:
            while (line := self._next()) is not None and line not in _LEAVE_WORDS:
                self._execute(line)
        except KeyboardInterrupt:
            self._write('\n')
            self._stop()
            return 130
        return 1 if self._failed else 0

    def _next(self) -> str | None:
        """Return the next line, an empty one first if any line stops the arms; None at the end."""
        self._write(self._prompt)
        self._reader.read(wait=not self._reader.lines)
        if self._reader.drop_until(means_stop):
            return ''
        return self._reader.lines.popleft() if self._reader.lines else None

    def _execute(self, line: str) -> None:
        verb, _, text = line.partition(' ')
        if means_stop(line):
            self._stop()
        elif verb in _HELP_WORDS:
            self._write(f'{WELCOME}\n' + ''.join(f'  {name:9}{what}\n' for name, what in VERBS.items()))
        elif verb not in VERBS:
            near = did_you_mean(verb, VERBS)
            self._fail(f'there is no verb {verb!r}' + (near or f'; expected one of {", ".join(VERBS)}'))
        elif bool(text) != (verb == 'prompt'):
            self._fail('prompt needs an instruction: prompt pick up the red cube' if not text else
                       f'{verb} takes nothing after it, got {text.strip()!r}')
        else:
            self._request(verb, _unquoted(text.strip()))

    def _request(self, verb: str, text: str) -> None:
        try:
            self._done(self._client.perform(verb, text))
        except RequestError as error:
            self._fail(str(error))
        except RequestPreempted:
            self._write(f'{verb} was given up\n')
            self._stop()

    def _stop(self) -> None:
        # More such lines meanwhile ask for the same.
        self._client.should_preempt = self._more_stops
        try:
            self._done(self._client.enable(False))
        except RequestError as error:
            self._fail(str(error))
        finally:
            self._client.should_preempt = self._stop_is_wanted

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

    A person who types "DISABEL!" in haste must not read about verbs while the arms move on.
    """
    words = line.strip(_PUNCTUATION + ' ').casefold().split()
    first = words[0].strip(_PUNCTUATION) if words else ''
    return not first or difflib.get_close_matches(first, VERBS, n=1) == ['disable']


def _unquoted(text: str) -> str:
    """Return text without the quotes that it has in a shell."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in '\'"' else text
