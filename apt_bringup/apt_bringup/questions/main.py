"""Old name of ``apt_sim.vqa.main``."""

import sys

from apt_policy.moved import run_moved

if __name__ == '__main__':
    sys.exit(run_moved('apt_bringup.questions.main', 'apt_sim.vqa.main', 'apt_sim.vqa.main'))
