"""Old names of executables that other packages have now (``ros2 run apt_bringup simulator``): they say so, and run."""

import sys
from pathlib import Path

from apt_policy.moved import run_moved

MOVED = {
    'apt-record': 'apt_recorder.main',
    'apt-sim-data': 'apt_sim.collect.main',
    'apt-sim-eval': 'apt_sim.evaluation.main',
    'apt-sim-questions': 'apt_sim.vqa.main',
    'demo': 'apt_demos.demo.main',
    'demonstrator': 'apt_sim.tasks.node',
    'ik_bridge': 'apt_control.node',
    'simulator': 'apt_sim.world.node',
}


def main() -> int:
    """Run what the called executable became."""
    name = Path(sys.argv[0]).name
    module = MOVED[name]
    return run_moved(f'apt_bringup {name}', f'{module.partition(".")[0]} {name}', module)
