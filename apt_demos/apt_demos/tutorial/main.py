"""``make tutorial``: from nothing to a trained policy that drives the simulated robot.

Runs the suite's own commands one after the other. A step that is done is not done again; Ctrl-C ends the
step that runs, and the next start goes on there.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from apt_demos.steps.runner import Runner
from apt_demos.steps.step import named
from apt_demos.tutorial.plan import Sizes, steps
from apt_policy.console import print_error
from apt_policy.core.shipped import shipped_contract
from apt_policy.core.stop import stop_requests


def main(words: Sequence[str] | None = None) -> int:
    """Run it.

    Returns:
        0 when every step is done, 130 on Ctrl-C, 2 for arguments that cannot be used, else 1.
    """
    options = _options(words)
    console = Console()
    sizes = Sizes(episodes=options.episodes, held_out=options.held_out, iterations=options.iterations,
                  watch_s=options.watch, speed=options.speed)
    try:
        known = steps(options.out, shipped_contract('aloha_tutorial.yaml'), sizes)
        chosen = named(options.only, [(step,) for step in known])
    except ValueError as error:
        print_error(console, f'tutorial: {error}')
        return 2
    if options.fresh:
        shutil.rmtree(options.out, ignore_errors=True)
    with stop_requests() as stop:
        return Runner('tutorial', options.out, console, stop).run(chosen)


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


if __name__ == '__main__':
    sys.exit(main())
