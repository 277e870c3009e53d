"""Old name of ``apt_training.vlm_finetune.main``."""

import sys

from apt_policy.moved import run_moved

if __name__ == '__main__':
    sys.exit(run_moved('apt_training.teach.main', 'apt_training.vlm_finetune.main', 'apt_training.vlm_finetune.main'))
