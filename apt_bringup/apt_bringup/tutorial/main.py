"""Old name of ``apt_demos.tutorial.main``."""

import sys

from apt_policy.moved import run_moved

if __name__ == '__main__':
    sys.exit(run_moved('apt_bringup.tutorial.main', 'apt_demos.tutorial.main', 'apt_demos.tutorial.main'))
