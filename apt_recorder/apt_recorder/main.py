"""``apt-record``: record every stream of a robot into a rosbag2 bag, with prompt and episode marks."""

import sys
from collections.abc import Sequence
from functools import partial

from apt_policy.console import run_program

PROGRAM = 'apt-record'
_EXAMPLES = """
keys: space begins and ends an episode, d discards it, q ends the recording

examples:
  apt-record out/bags/monday                        every stream of the shipped ALOHA contract
  apt-record out/bags/monday --without cam_low      one camera is broken, and that is known
  apt-record out/bags/monday --episode-per-prompt   each new instruction is an episode
  apt-record --recover out/bags/monday              repair the bag of a killed recording
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Record until Ctrl-C, SIGTERM, a limit, or a full disk.

    Returns:
        0 for a whole recording; 1 if it could not start, or could not write all; 2 for arguments that cannot be
        used.
    """
    return run_program(PROGRAM, partial(_run, list(sys.argv[1:] if argv is None else argv)))


def _run(argv: Sequence[str]) -> int:
    from apt_policy.cli import parse
    from apt_recorder.arguments import RecordArguments
    end = argv.index('--ros-args') if '--ros-args' in argv else len(argv)
    arguments = parse(RecordArguments, argv[:end], program=PROGRAM, examples=_EXAMPLES)
    from apt_recorder.run import record
    return record(arguments, ros_args=argv[end:])


if __name__ == '__main__':
    sys.exit(main())
