"""Old name of ``apt_sim.collect.main``."""

import sys

from apt_policy.moved import run_moved

if __name__ == '__main__':
    sys.exit(run_moved('apt_bringup.demonstrations.main', 'apt_sim.collect.main', 'apt_sim.collect.main'))
