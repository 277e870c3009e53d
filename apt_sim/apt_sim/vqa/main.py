"""``apt-sim-vqa``: write pictures of the simulated table and questions about them, to fine-tune a VLM on."""

import sys
from collections.abc import Sequence
from functools import partial

from apt_policy.console import run_program

PROGRAM = 'apt-sim-vqa'
_EXAMPLES = """
examples:
  apt-sim-vqa --shards 400 --out data/vqa
"""
_RENAMED = {'--jobs': '--workers', '--sheets': '--shards'}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the dataset; return 0 if every shard is there, 130 if interrupted, else 1 or 2."""
    return run_program(PROGRAM, partial(_run, argv),
                       interrupted='interrupted; complete shards stay, and the same command resumes')


def _run(argv: Sequence[str] | None) -> int:
    from apt_policy.cli import parse
    from apt_sim.vqa.arguments import VqaArguments
    arguments = parse(VqaArguments, argv, program=PROGRAM, examples=_EXAMPLES, renamed=_RENAMED)
    from apt_sim.vqa.run import write_dataset
    return write_dataset(arguments)


if __name__ == '__main__':
    sys.exit(main())
