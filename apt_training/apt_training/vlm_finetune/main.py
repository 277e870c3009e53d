"""``apt-teach``: a vision-language model learns from conversations about pictures.

    apt-teach data/questions --out models/table_vlm                       # a small one, from nothing
    apt-teach data/questions --vlm Qwen/Qwen3-VL-2B-Instruct --out models/table_vlm

What comes out is a folder as the Hugging Face hub has them; ``apt-train --vlm FOLDER`` takes it.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from apt_training.vlm_finetune.conversations import ConversationDataset, ConversationError
from apt_training.vlm_finetune.finetune import VlmFinetuneConfig, VlmFinetuneError, finetune_vlm

log = logging.getLogger('apt_training.vlm_finetune')


def main(words: Sequence[str] | None = None) -> int:
    """Teach; the exit status: 0 done, 2 for what cannot be used, 130 if interrupted, else 1."""
    options = _parser().parse_args(words)
    logging.basicConfig(format='apt-teach: %(message)s', stream=sys.stderr)
    logging.getLogger('apt_training').setLevel(logging.INFO)
    try:
        config = VlmFinetuneConfig(out=options.out, vlm=options.vlm, steps=options.steps,
                                   grounding_warmup_steps=options.looking, batch_size=options.bs, lr=options.lr,
                                   seed=options.seed, save_every=options.save_every, workers=options.workers,
                                   half=options.half)
        held_out = ConversationDataset([options.held_out]) if options.held_out else None
        finetune_vlm(config, ConversationDataset(options.data), held_out)
    except (ConversationError, VlmFinetuneError) as error:
        log.error('%s', error)
        return 2
    except KeyboardInterrupt:
        log.error('interrupted; the same command goes on from the last save')
        return 130
    except OSError as error:
        log.error('%s: %s', type(error).__name__, error)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='apt-teach', description='Teach a vision-language model with conversations '
                                                                   'about pictures.')
    add = parser.add_argument
    add('data', nargs='+', type=Path, metavar='FOLDER', help='conversations, as apt-sim-questions writes them')
    add('--out', type=Path, required=True, help='folder of the model; a run that was broken off goes on there')
    add('--vlm', default=VlmFinetuneConfig.vlm, help='Qwen3-VL by hub name or folder; "from-scratch" (default): a '
                                                     'small one with random weights')
    add('--held-out', type=Path, metavar='FOLDER', help='conversations to examine it with')
    add('--steps', type=int, default=VlmFinetuneConfig.steps, help='default: %(default)s')
    add('--looking', type=int, default=VlmFinetuneConfig.grounding_warmup_steps, metavar='N',
        help='steps before them in which only what is marked in pictures is found; default: %(default)s')
    add('--bs', type=int, default=VlmFinetuneConfig.batch_size, metavar='N',
        help='conversations per step and process; default: %(default)s')
    add('--lr', type=float, default=VlmFinetuneConfig.lr, help='highest rate; default: %(default)s')
    add('--seed', type=int, default=VlmFinetuneConfig.seed)
    add('--save-every', type=int, default=VlmFinetuneConfig.save_every, metavar='N', help='default: %(default)s')
    add('--workers', type=int, default=VlmFinetuneConfig.workers, metavar='N',
        help='loading processes; default: %(default)s')
    add('--half', action=argparse.BooleanOptionalAction, default=VlmFinetuneConfig.half,
        help='bfloat16 where it is precise enough (default)')
    return parser


if __name__ == '__main__':
    sys.exit(main())
