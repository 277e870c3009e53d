"""``apt-eval``: measure a checkpoint on held-out episodes, without a robot."""

import logging
import sys
from collections.abc import Sequence
from functools import partial

from apt_policy.console import run_program

PROGRAM = 'apt-eval'
_RENAMED = {'--steps': '--denoising-steps', '--batch': '--batch-size'}


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate; return 0, or 2 when arguments, checkpoint or episodes cannot be used."""
    return run_program(PROGRAM, partial(_run, argv), also=(ValueError,))


def _run(argv: Sequence[str] | None) -> int:
    from apt_policy.cli import parse
    from apt_training.evaluate.arguments import EvalArguments
    arguments = parse(EvalArguments, argv, program=PROGRAM, renamed=_RENAMED)
    logging.basicConfig(level=logging.WARNING, format='%(levelname)s: %(message)s')
    from apt_training.evaluate.run import run_evaluation
    run_evaluation(arguments)
    return 0


if __name__ == '__main__':
    sys.exit(main())
