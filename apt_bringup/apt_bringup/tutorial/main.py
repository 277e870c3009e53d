"""``make tutorial``: from nothing to a trained policy that drives the simulated robot.

Runs the suite's own commands one after the other. A step that is done is not done again; Ctrl-C ends the
step that runs, and the next start goes on there.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event

from ament_index_python.packages import get_package_share_directory
from rich.console import Console
from rich.table import Table

from apt_bringup.stop import stop_requests
from apt_bringup.supervise import Patience, Process
from apt_bringup.tutorial.plan import Sizes, Step, named, steps

# Training saves before it ends.
_PATIENCE = Patience(interrupt_s=60.0, terminate_s=10.0)
_LOOK_S = 0.2


def main(words: Sequence[str] | None = None) -> int:
    """Run it.

    Returns:
        0 when every step is done, 130 on Ctrl-C, 2 for arguments that cannot be used, else 1.
    """
    options = _options(words)
    console = Console()
    share = Path(get_package_share_directory('apt_bringup'))
    sizes = Sizes(episodes=options.episodes, held_out=options.held_out, iterations=options.iterations,
                  watch_s=options.watch, speed=options.speed)
    try:
        chosen = named(options.only, steps(options.out, share / 'config' / 'aloha_tutorial.yaml', sizes))
    except ValueError as error:
        console.print(f'tutorial: {error}', style='red', markup=False)
        return 2
    if options.fresh:
        shutil.rmtree(options.out, ignore_errors=True)
    with stop_requests() as stop:
        return _Tutorial(options.out, console, stop).run(chosen)


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    defaults = Sizes()
    parser = argparse.ArgumentParser(prog='tutorial', description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=Path('out/tutorial'), help='folder of everything')
    parser.add_argument('--episodes', type=int, default=defaults.episodes, help='to train on')
    parser.add_argument('--held-out', type=int, default=defaults.held_out, help='episodes to evaluate on')
    parser.add_argument('--iterations', type=int, default=defaults.iterations, help='of training, per stage')
    parser.add_argument('--watch', type=float, default=defaults.watch_s, help='seconds that the policy runs')
    parser.add_argument('--speed', type=float, default=defaults.speed, help='simulated seconds per second, recording')
    parser.add_argument('--only', nargs='+', default=[], metavar='STEP', help='these steps and no others')
    parser.add_argument('--fresh', action='store_true', help='throw away what an earlier run left')
    return parser.parse_args(words)


class _Tutorial:
    """Does steps, and remembers which are done."""

    def __init__(self, out: Path, console: Console, stop: Event) -> None:
        self._done = out / '.done'
        self._console, self._stop = console, stop
        self._took: list[tuple[Step, str]] = []

    def run(self, chosen: Sequence[Step]) -> int:
        """The exit status."""
        self._done.mkdir(parents=True, exist_ok=True)
        for number, step in enumerate(chosen, 1):
            self._console.rule(f'{number}/{len(chosen)} {step.name}')
            self._say(f'{step.why}\n$ {step.command}')
            status = self._do(step)
            if self._stop.is_set():
                self._say('interrupted; the same command goes on here')
                return 130
            if status != 0:
                self._console.print(f'tutorial: {step.name} failed with status {status}; its last lines are above. '
                                    'Once that is put right, the same command goes on here', style='red', markup=False)
                return 1
        self._report()
        return 0

    def _do(self, step: Step) -> int:
        """0 when done, now or before."""
        mark = self._done / step.name.replace(' ', '_')
        if mark.exists() and mark.read_text() == step.command and step.product.exists():
            self._took.append((step, 'done before'))
            return 0
        began = time.monotonic()
        status = self._carry_out(step)
        if status == 0 and not step.product.exists():
            self._say(f'{step.name} ended well, but there is no {step.product}')
            return 1
        if status == 0:
            mark.write_text(step.command)
            self._took.append((step, f'{time.monotonic() - began:.0f} s'))
        return status

    def _carry_out(self, step: Step) -> int:
        process = Process(step.name, [sys.executable, '-m', step.module, *step.words],
                          {**os.environ, 'PYTHONUNBUFFERED': '1'})
        try:
            while process.exit_status is None and not self._stop.wait(_LOOK_S):
                pass
        finally:
            status = process.stop(_PATIENCE)
        return status

    def _report(self) -> None:
        table = Table(title=f'all done in {self._done.parent}')
        for column in ('step', 'time', 'made'):
            table.add_column(column)
        for step, took in self._took:
            table.add_row(step.name, took, str(step.product))
        self._console.print(table)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == '__main__':
    sys.exit(main())
