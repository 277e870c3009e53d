"""``apt-finetune-vlm``: fine-tune a vision-language model on conversations about pictures.

The result is a folder as the Hugging Face hub has them; ``apt-train --vlm FOLDER`` takes it.
"""

import logging
import sys
from collections.abc import Sequence
from functools import partial

from apt_policy.console import run_program
from apt_policy.moved import current_vlm

PROGRAM = 'apt-finetune-vlm'
_EXAMPLES = """
examples:
  apt-finetune-vlm data/vqa --out models/table_vlm                  a small model, from random weights
  apt-finetune-vlm data/vqa --vlm Qwen/Qwen3-VL-2B-Instruct --out models/table_vlm
"""
_RENAMED = {'--steps': '--max-steps', '--looking': '--grounding-steps'}


def main(argv: Sequence[str] | None = None) -> int:
    """Fine-tune; return 0, 2 for arguments or files that cannot be used, or 130 after Ctrl-C."""
    return run_program(PROGRAM, partial(_run, argv),
                       interrupted='interrupted; the same command resumes from the last checkpoint')


def _run(argv: Sequence[str] | None) -> int:
    from apt_policy.cli import parse
    from apt_training.vlm_finetune.arguments import VlmFinetuneArguments
    given = parse(VlmFinetuneArguments, argv, program=PROGRAM, examples=_EXAMPLES, renamed=_RENAMED)
    logging.basicConfig(format=f'{PROGRAM}: %(message)s', stream=sys.stderr)
    logging.getLogger('apt_training').setLevel(logging.INFO)
    from apt_training.vlm_finetune.conversations import ConversationDataset
    from apt_training.vlm_finetune.finetune import VlmFinetuneConfig, finetune_vlm
    config = VlmFinetuneConfig(
        out=given.out, vlm=current_vlm(given.vlm), steps=given.max_steps, grounding_warmup_steps=given.grounding_steps,
        batch_size=given.batch_size, lr=given.lr, seed=given.seed, save_every=given.save_every, workers=given.workers,
        half=given.half)
    held_out = ConversationDataset([given.held_out]) if given.held_out else None
    finetune_vlm(config, ConversationDataset(given.data), held_out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
