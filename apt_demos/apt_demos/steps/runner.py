"""Does steps, as processes, and remembers which are done.

A run that was interrupted or failed goes on at its first step that is not done. A step is done anew when its command
has changed in more than the names of modules. What the steps are for is not known here.
"""

import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event

from rich.console import Console
from rich.table import Table

from apt_bringup.supervise import ChildProcess, StopTimeouts
from apt_demos.steps.step import Phase, Step
from apt_policy.console import print_error

# Training saves before it ends.
_PATIENCE = StopTimeouts(interrupt_s=60.0, terminate_s=10.0)
_LOOK_S = 0.2
INTERRUPTED = 130
_MODULE = re.compile(r'(?<= -m )\S+')
# Words of commands in folders that releases before 0.3 made.
_RENAMED = {
    'apt-sim-questions': 'apt-sim-vqa', 'apt-sim-data': 'apt-sim-collect', '--sheets': '--shards',
    '--jobs': '--workers', '--disturb': '--action-noise', '--stumble': '--recovery-share',
    '--still-cameras': '--no-vary-cameras', '--looking': '--grounding-steps', '--steps': '--max-steps',
    '--bs': '--batch-size', '--max-iter': '--max-steps', '--ckpt_dir': '--ckpt-dir', '--draws': '--noise-samples'}


class Runner:
    """Of one piece of work."""

    def __init__(self, title: str, out: Path, console: Console, stop: Event, *, jobs: int = 1,
                 environment: Mapping[str, str] | None = None) -> None:
        """
        Args:
            title: of the work, before every sentence.
            out: folder of everything; what is done is noted in it.
            stop: set by whoever wants the work to end.
            jobs: steps of a phase that may be done side by side.
            environment: added to that of the steps.
        """
        self._title, self._out, self._done = title, out, out / '.done'
        self._console, self._stop, self._jobs = console, stop, jobs
        self._environment = {**os.environ, 'PYTHONUNBUFFERED': '1', **(environment or {})}
        self._took: list[tuple[Step, str]] = []

    def run(self, phases: Sequence[Phase]) -> int:
        """Do them all; 0, 130 if stopped, 1 if a step failed."""
        self._done.mkdir(parents=True, exist_ok=True)
        for number, phase in enumerate(phases, 1):
            self._console.rule(f'{number}/{len(phases)} {", ".join(step.name for step in phase)}')
            failed = self._do(list(phase))
            if self._stop.is_set():
                self.say('interrupted; the same command goes on here')
                return INTERRUPTED
            if failed is not None:
                self.print_error(f'{failed.name} failed; its last lines are above. Once that is put right, the same '
                                 'command goes on here')
                return 1
        self._report()
        return 0

    def say(self, text: str) -> None:
        """A line for the reader."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def print_error(self, text: str) -> None:
        """What went wrong."""
        print_error(self._console, f'{self._title}: {text}')

    def _do(self, waiting: list[Step]) -> Step | None:
        """The steps of one phase; one that failed."""
        under_way: list[_Attempt] = []
        failed: Step | None = None
        try:
            while waiting or under_way:
                while waiting and len(under_way) < self._jobs and failed is None and not self._stop.is_set():
                    step = waiting.pop(0)
                    if self._is_done(step):
                        self._took.append((step, 'done before'))
                        continue
                    self.say(f'{step.why}\n$ {step.command}')
                    under_way.append(_Attempt(step, self._environment))
                if not under_way:
                    break
                self._stop.wait(_LOOK_S)
                for attempt in [attempt for attempt in under_way if attempt.ended or self._stop.is_set()]:
                    under_way.remove(attempt)
                    failed = self._close(attempt) or failed
        finally:
            for attempt in under_way:
                attempt.process.stop(_PATIENCE)
        return failed

    def _is_done(self, step: Step) -> bool:
        mark = self._mark(step)
        return mark.exists() and _work(mark.read_text()) == _work(step.command) and step.product.exists()

    def _close(self, attempt: '_Attempt') -> Step | None:
        step, status = attempt.step, attempt.process.stop(_PATIENCE)
        if status == 0 and step.product.exists():
            self._mark(step).write_text(step.command)
            self._took.append((step, f'{time.monotonic() - attempt.began_s:.0f} s'))
            return None
        if not self._stop.is_set():
            self.print_error(f'{step.name} ended with status {status}' if status else
                             f'{step.name} ended well, but there is no {step.product}')
        return step

    def _mark(self, step: Step) -> Path:
        return self._done / step.name.replace(' ', '_')

    def _report(self) -> None:
        table = Table(title=f'all done in {self._out}')
        for column in ('step', 'time', 'made'):
            table.add_column(column)
        for step, took in self._took:
            table.add_row(step.name, took, str(step.product))
        self._console.print(table)


def _work(command: str) -> str:
    """Return a command without the names of its modules, and with the flags' names of now.

    A folder that was begun before these changed resumes.
    """
    words = _MODULE.sub('', command).split(' ')
    return ' '.join(_RENAMED.get(word, word) for word in words)


class _Attempt:
    """A step under way."""

    def __init__(self, step: Step, environment: Mapping[str, str]) -> None:
        self.step = step
        self.began_s = time.monotonic()
        self.process = ChildProcess(step.name, [sys.executable, '-m', step.module, *step.words], environment)

    @property
    def ended(self) -> bool:
        return self.process.exit_status is not None
