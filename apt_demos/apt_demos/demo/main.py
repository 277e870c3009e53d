"""``make demo``: the policy on real ROS 2, in simulation, from camera to joint."""

import sys
from collections.abc import Sequence
from functools import partial

from apt_policy.console import run_program

PROGRAM = 'demo'


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo.

    Returns:
        0 when targets flowed at the control rate and the arms followed them, 130 on Ctrl-C, 2 for arguments
        that cannot be used, else 1.
    """
    return run_program(PROGRAM, partial(_run, argv), also=(ValueError,))


def _run(argv: Sequence[str] | None) -> int:
    from apt_demos.demo.arguments import DemoArguments
    from apt_policy.cli import parse
    arguments = parse(DemoArguments, argv, program=PROGRAM)
    from apt_demos.demo.run import run_demo
    return run_demo(arguments)


if __name__ == '__main__':
    sys.exit(main())
