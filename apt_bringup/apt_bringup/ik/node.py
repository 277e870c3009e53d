"""Old name of ``apt_control.node``."""

import sys

from apt_policy.moved import run_moved

if __name__ == '__main__':
    sys.exit(run_moved('apt_bringup.ik.node', 'apt_control.node', 'apt_control.node'))
