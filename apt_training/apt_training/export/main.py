"""``apt-export``: write a checkpoint as one folder that needs nothing else."""

import logging
import sys
from collections.abc import Sequence
from functools import partial

from apt_policy.console import run_program

PROGRAM = 'apt-export'
_EXAMPLES = """
examples:
  apt-export out/runs/robot_vla --out my_policy
  apt-export out/runs/robot_vla --out my_policy --half
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Export a checkpoint; return 0, or 2 for a checkpoint that cannot be used."""
    return run_program(PROGRAM, partial(_run, argv), also=(ValueError,))


def _run(argv: Sequence[str] | None) -> int:
    from apt_policy.cli import parse
    from apt_training.export.arguments import ExportArguments
    arguments = parse(ExportArguments, argv, program=PROGRAM, examples=_EXAMPLES)
    from apt_training.export.checkpoint import export_checkpoint, log
    logging.basicConfig(format=f'{PROGRAM}: %(message)s', level=logging.INFO, stream=sys.stderr)
    logging.getLogger('httpx').setLevel(logging.WARNING)
    size = export_checkpoint(arguments.checkpoint, arguments.out, half=arguments.half)
    log.info('%s, %.1f MB', arguments.out, size / 1e6)
    return 0


if __name__ == '__main__':
    sys.exit(main())
