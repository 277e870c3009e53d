"""``apt-train``: from episodes to a checkpoint."""

import sys
from collections.abc import Sequence
from functools import partial

from apt_policy.console import run_program

PROGRAM = 'apt-train'
_EXAMPLES = """
examples:
  apt-train --config debug --stage both --data out/episodes --contract config/aloha_sim.yaml --gpus 0
  apt-train --config base --stage 0 --data Droid=10 AgiBotWorld=10 --gpus 4 --backend ddp --va-name prior
  apt-train --config base --stage 1 --data my_robot --va-name prior --vla-name robot --vlm-mode lora --vla-conti
  torchrun --nnodes 2 --nproc-per-node 8 ... -m apt_training.train.main --config base ...

exit status: 0 done, 75 stopped by SIGINT or SIGTERM and saved (the same command with --va-conti --vla-conti
resumes), 2 arguments that cannot be used, 1 anything else.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Train.

    Returns:
        0 done, 75 stopped by a signal and saved, 2 for arguments that cannot be used, else 1.
    """
    return run_program(PROGRAM, partial(_run, list(sys.argv[1:] if argv is None else argv)))


def _run(argv: Sequence[str]) -> int:
    from apt_policy.cli import parse
    from apt_training.train.arguments import TrainFlags
    flags = parse(TrainFlags, argv, program=PROGRAM, examples=_EXAMPLES)
    from apt_training.train.run import train
    return train(flags, argv)


if __name__ == '__main__':
    sys.exit(main())
