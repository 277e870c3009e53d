"""Old name of ``apt_recorder.main``."""

import sys

from apt_policy.moved import run_moved

if __name__ == '__main__':
    sys.exit(run_moved('apt_bringup.record.main', 'apt_recorder.main', 'apt_recorder.main'))
