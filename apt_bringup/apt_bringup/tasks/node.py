"""Old name of ``apt_sim.tasks.node``."""

import sys

from apt_policy.moved import run_moved

if __name__ == '__main__':
    sys.exit(run_moved('apt_bringup.tasks.node', 'apt_sim.tasks.node', 'apt_sim.tasks.node'))
