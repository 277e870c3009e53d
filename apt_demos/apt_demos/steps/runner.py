"""Runner of command steps as processes, with a record of finished steps.

An interrupted or failed run continues at its first unfinished step. A step runs again if its command has changed in
more than the names of modules.
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
from apt_demos.steps.step import CommandStep, Phase
from apt_policy.console import print_error

# Training writes a checkpoint before it ends.
_PATIENCE = StopTimeouts(interrupt_s=60.0, terminate_s=10.0)
_POLL_PERIOD_S = 0.2
INTERRUPTED = 130
_MODULE = re.compile(r'(?<= -m )\S+')
# Words of commands in folders that releases before 0.3 made.
_RENAMED = {
    'apt-sim-questions': 'apt-sim-vqa', 'apt-sim-data': 'apt-sim-collect', '--sheets': '--shards',
    '--jobs': '--workers', '--disturb': '--action-noise', '--stumble': '--recovery-share',
    '--still-cameras': '--no-vary-cameras', '--looking': '--grounding-steps', '--steps': '--max-steps',
    '--bs': '--batch-size', '--max-iter': '--max-steps', '--ckpt_dir': '--ckpt-dir', '--draws': '--noise-samples'}


class StepRunner:
    """Runner of the steps of one program."""

    def __init__(self, title: str, out: Path, console: Console, stop: Event, *, jobs: int = 1,
                 environment: Mapping[str, str] | None = None) -> None:
        """Prepare a run.

        Args:
            title: name of the program in messages.
            out: folder of all outputs; it records the finished steps.
            console: output for the user.
            stop: set to end the run.
            jobs: number of steps of a phase that run in parallel.
            environment: added to the environment of the steps.
        """
        self._title, self._out, self._done = title, out, out / '.done'
        self._console, self._stop, self._jobs = console, stop, jobs
        self._environment = {**os.environ, 'PYTHONUNBUFFERED': '1', **(environment or {})}
        self._took: list[tuple[CommandStep, str]] = []

    def run(self, phases: Sequence[Phase]) -> int:
        """Run all steps.

        Returns:
            0 if all steps are done, 130 if stopped, 1 if a step failed.
        """
        self._done.mkdir(parents=True, exist_ok=True)
        for number, phase in enumerate(phases, 1):
            self._console.rule(f'{number}/{len(phases)} {", ".join(step.name for step in phase)}')
            failed = self._do(list(phase))
            if self._stop.is_set():
                self.print_line('interrupted; run the same command to continue')
                return INTERRUPTED
            if failed is not None:
                self.print_failure(f'{failed.name} failed; its last lines are above. Fix the cause and run the same '
                                   'command to continue')
                return 1
        self._report()
        return 0

    def print_line(self, text: str) -> None:
        """Print a line for the user."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def print_failure(self, text: str) -> None:
        """Print an error with the program's name."""
        print_error(self._console, f'{self._title}: {text}')

    def _do(self, waiting: list[CommandStep]) -> CommandStep | None:
        """Run the steps of one phase and return one that failed."""
        under_way: list[_Attempt] = []
        failed: CommandStep | None = None
        try:
            while waiting or under_way:
                while waiting and len(under_way) < self._jobs and failed is None and not self._stop.is_set():
                    step = waiting.pop(0)
                    if self._is_done(step):
                        self._took.append((step, 'done before'))
                        continue
                    self.print_line(f'{step.description}\n$ {step.command}')
                    under_way.append(_Attempt(step, self._environment))
                if not under_way:
                    break
                self._stop.wait(_POLL_PERIOD_S)
                for attempt in [attempt for attempt in under_way if attempt.ended or self._stop.is_set()]:
                    under_way.remove(attempt)
                    failed = self._close(attempt) or failed
        finally:
            for attempt in under_way:
                attempt.process.stop(_PATIENCE)
        return failed

    def _is_done(self, step: CommandStep) -> bool:
        mark = self._mark(step)
        return mark.exists() and _work(mark.read_text()) == _work(step.command) and step.output.exists()

    def _close(self, attempt: '_Attempt') -> CommandStep | None:
        step, status = attempt.step, attempt.process.stop(_PATIENCE)
        if status == 0 and step.output.exists():
            self._mark(step).write_text(step.command)
            self._took.append((step, f'{time.monotonic() - attempt.began_s:.0f} s'))
            return None
        if not self._stop.is_set():
            self.print_failure(f'{step.name} ended with status {status}' if status else
                               f'{step.name} ended with status 0, but did not create {step.output}')
        return step

    def _mark(self, step: CommandStep) -> Path:
        return self._done / step.name.replace(' ', '_')

    def _report(self) -> None:
        table = Table(title=f'all steps done in {self._out}')
        for column in ('step', 'time', 'output'):
            table.add_column(column)
        for step, took in self._took:
            table.add_row(step.name, took, str(step.output))
        self._console.print(table)


def _work(command: str) -> str:
    """Return a command without module names and with the present flags, so that folders of older releases resume."""
    words = _MODULE.sub('', command).split(' ')
    return ' '.join(_RENAMED.get(word, word) for word in words)


class _Attempt:
    """Running step."""

    def __init__(self, step: CommandStep, environment: Mapping[str, str]) -> None:
        self.step = step
        self.began_s = time.monotonic()
        self.process = ChildProcess(step.name, [sys.executable, '-m', step.module, *step.arguments], environment)

    @property
    def ended(self) -> bool:
        return self.process.exit_status is not None
