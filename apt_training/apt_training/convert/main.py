"""``apt-convert``: convert recordings, or LeRobot datasets, to episode files."""

import sys
from collections.abc import Sequence
from functools import partial

from apt_policy.console import run_program

PROGRAM = 'apt-convert'
_RENAMED = {'--jobs': '--workers', '--receive': '--stamp-on-receipt'}


def main(argv: Sequence[str] | None = None) -> int:
    """Convert recordings.

    Returns:
        0 if everything was converted, 1 if an input failed, is damaged or gave no episode, 2 for arguments
        that cannot be used, 130 when interrupted: the same command resumes.
    """
    return run_program(PROGRAM, partial(_run, argv))


def _run(argv: Sequence[str] | None) -> int:
    from apt_policy.cli import parse
    from apt_training.convert.arguments import ConvertArguments
    arguments = parse(ConvertArguments, argv, program=PROGRAM, examples='docs/convert.md explains each choice.',
                      renamed=_RENAMED)
    from apt_training.convert.run import convert
    return convert(arguments)


if __name__ == '__main__':
    sys.exit(main())
