"""Old name of ``apt_demos.demo.main``."""

import sys

from apt_policy.moved import run_moved

if __name__ == '__main__':
    sys.exit(run_moved('apt_bringup.demo.main', 'apt_demos.demo.main', 'apt_demos.demo.main'))
