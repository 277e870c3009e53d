"""``make study``: compare one stage, two stages, and two stages with a frozen prior."""

import sys
from collections.abc import Sequence
from functools import partial

from apt_policy.console import run_program

PROGRAM = 'study'
_RENAMED = {'--jobs': '--workers', '--sheets': '--shards', '--looking': '--grounding-steps', '--lessons': '--vlm-steps',
            '--iterations': '--max-steps', '--batch': '--batch-size', '--trials': '--rollouts'}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study.

    Returns:
        0 when every step is done, 130 on Ctrl-C, 2 for arguments that cannot be used, else 1.
    """
    return run_program(PROGRAM, partial(_run, argv), also=(ValueError,))


def _run(argv: Sequence[str] | None) -> int:
    from apt_demos.study.arguments import StudyArguments
    from apt_policy.cli import parse
    arguments = parse(StudyArguments, argv, program=PROGRAM, renamed=_RENAMED)
    from apt_demos.study.run import run_study
    return run_study(arguments)


if __name__ == '__main__':
    sys.exit(main())
