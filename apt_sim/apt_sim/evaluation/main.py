"""``apt-sim-eval``: measure how often a policy does what it is told, closed loop in simulation."""

import sys
from collections.abc import Sequence
from functools import partial

from apt_policy.console import run_program

PROGRAM = 'apt-sim-eval'
_EXAMPLES = """
examples:
  apt-sim-eval --checkpoint runs/vla --split seen,unseen_object --episodes 100 --json out/eval.json
"""
_RENAMED = {'--jobs': '--workers'}


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate; return 0 if every rollout was run, 130 if interrupted, else 1 or 2."""
    return run_program(PROGRAM, partial(_run, argv))


def _run(argv: Sequence[str] | None) -> int:
    from apt_policy.cli import parse
    from apt_sim.evaluation.arguments import SimEvalArguments
    arguments = parse(SimEvalArguments, argv, program=PROGRAM, examples=_EXAMPLES, renamed=_RENAMED)
    from apt_sim.evaluation.run import evaluate_policy
    return evaluate_policy(arguments)


if __name__ == '__main__':
    sys.exit(main())
