"""Old executables of this package (``ros2 run apt_bringup simulator``), which print the new name and run."""

import sys
from pathlib import Path

from apt_policy.moved import run_moved

MOVED = {
    'apt-record': ('apt-record', 'apt_recorder.main'),
    'apt-sim-data': ('apt-sim-collect', 'apt_sim.collect.main'),
    'apt-sim-eval': ('apt-sim-eval', 'apt_sim.evaluation.main'),
    'apt-sim-questions': ('apt-sim-vqa', 'apt_sim.vqa.main'),
    'demo': ('demo', 'apt_demos.demo.main'),
    'demonstrator': ('demonstrator', 'apt_sim.tasks.node'),
    'ik_bridge': ('ik_bridge', 'apt_control.node'),
    'simulator': ('simulator', 'apt_sim.world.node'),
}
"""Executables by their old names: the new name, and the module of the program."""


def main() -> int:
    """Run the program that has the called executable's place."""
    old = Path(sys.argv[0]).name
    new, module = MOVED[old]
    return run_moved(f'apt_bringup {old}', f'{module.partition(".")[0]} {new}', module)
