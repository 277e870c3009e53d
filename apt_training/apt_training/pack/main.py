"""Old name of ``apt_training.export.main``."""

import sys

from apt_policy.moved import run_moved

if __name__ == '__main__':
    sys.exit(run_moved('apt_training.pack.main', 'apt_training.export.main', 'apt_training.export.main'))
