"""``apt-sim-collect``: collect scripted demonstrations in simulation, as episode files."""

import sys
from collections.abc import Sequence
from functools import partial

from apt_policy.console import run_program

PROGRAM = 'apt-sim-collect'
_EXAMPLES = """
examples:
  apt-sim-collect --split train --episodes 2000 --workers 2 --out data/train
  apt-sim-collect --split train --episodes 2000 --bags 3 --out data/train     the first three as rosbag2 bags too
"""
_RENAMED = {'--jobs': '--workers', '--disturb': '--action-noise', '--stumble': '--recovery-share',
            '--still-cameras': '--no-vary-cameras'}


def main(argv: Sequence[str] | None = None) -> int:
    """Collect episodes; return 0 if every episode is there, 130 if interrupted, else 1 or 2."""
    return run_program(PROGRAM, partial(_run, argv))


def _run(argv: Sequence[str] | None) -> int:
    from apt_policy.cli import parse
    from apt_sim.collect.arguments import CollectArguments
    arguments = parse(CollectArguments, argv, program=PROGRAM, examples=_EXAMPLES, renamed=_RENAMED)
    from apt_sim.collect.run import collect
    return collect(arguments)


if __name__ == '__main__':
    sys.exit(main())
