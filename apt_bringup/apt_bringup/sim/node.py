"""Old name of ``apt_sim.world.node``."""

import sys

from apt_policy.moved import run_moved

if __name__ == '__main__':
    sys.exit(run_moved('apt_bringup.sim.node', 'apt_sim.world.node', 'apt_sim.world.node'))
