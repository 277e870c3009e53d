"""``apt-inspect``: show what is in episode files."""

import sys
from collections.abc import Sequence
from functools import partial

from apt_policy.console import run_program

PROGRAM = 'apt-inspect'


def main(argv: Sequence[str] | None = None) -> int:
    """Show episodes; return 0, or 2 when a file cannot be read or written, or the arguments cannot be used."""
    return run_program(PROGRAM, partial(_run, argv))


def _run(argv: Sequence[str] | None) -> int:
    from apt_policy.cli import parse
    from apt_training.inspect.arguments import InspectArguments
    arguments = parse(InspectArguments, argv, program=PROGRAM)
    from apt_training.inspect.run import inspect_files
    return inspect_files(arguments)


if __name__ == '__main__':
    sys.exit(main())
