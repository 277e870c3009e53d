"""``make tutorial``: from nothing to a trained policy that drives the simulated robot."""

import sys
from collections.abc import Sequence
from functools import partial

from apt_policy.console import run_program

PROGRAM = 'tutorial'
_RENAMED = {'--iterations': '--max-steps'}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tutorial.

    Returns:
        0 when every step is done, 130 on Ctrl-C, 2 for arguments that cannot be used, else 1.
    """
    return run_program(PROGRAM, partial(_run, argv), also=(ValueError,))


def _run(argv: Sequence[str] | None) -> int:
    from apt_demos.tutorial.arguments import TutorialArguments
    from apt_policy.cli import parse
    arguments = parse(TutorialArguments, argv, program=PROGRAM, renamed=_RENAMED)
    from apt_demos.tutorial.run import run_tutorial
    return run_tutorial(arguments)


if __name__ == '__main__':
    sys.exit(main())
