"""Old name of ``apt_sim.evaluation.main``."""

import sys

from apt_policy.moved import run_moved

if __name__ == '__main__':
    sys.exit(run_moved('apt_bringup.trials.main', 'apt_sim.evaluation.main', 'apt_sim.evaluation.main'))
