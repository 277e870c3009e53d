"""Old name of ``apt_demos.study.main``."""

import sys

from apt_policy.moved import run_moved

if __name__ == '__main__':
    sys.exit(run_moved('apt_bringup.study.main', 'apt_demos.study.main', 'apt_demos.study.main'))
