"""Shipped weights: small, complete, made for the small robot, and sensitive to the instruction."""

import json
from pathlib import Path

import numpy as np
import pytest

from apt_policy.core.contract import load_contract
from apt_policy.inference.planner import load_planner
from apt_policy.inference.planner_config import PlannerConfig
from apt_sim.evaluation.loop_ports import SimulatedObservationSource
from apt_sim.evaluation.rollout import rollout_scene
from apt_sim.evaluation.splits import TRAIN_OBJECTS
from apt_sim.evaluation.stopwatch import Stopwatch
from apt_sim.tasks.task_scene import ground_truth
from apt_sim.world.cameras import CameraRig
from apt_sim.world.physics import Simulation
from apt_sim.world.scene import LIGHT_RANDOMIZATION

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = ROOT / 'apt_sim' / 'checkpoints' / 'aloha_small'
MOST_BYTES = 25e6
SCENES = 6


@pytest.fixture(scope='module')
def contract():
    return load_contract(ROOT / 'apt_bringup' / 'config' / 'aloha_small.yaml')


def test_they_fit_into_the_repository_and_say_how_they_were_made():
    files = [file for file in SHIPPED.rglob('*') if file.is_file()]
    assert sum(file.stat().st_size for file in files) < MOST_BYTES
    recipe = json.loads((SHIPPED / 'recipe.json').read_text())
    assert recipe['recipe'] == 'demo' and 'seed' in recipe
    told = (SHIPPED / 'README.md').read_text()
    assert all(command in told for command in (
        'apt-sim-questions', 'apt_training.vlm_finetune.main', 'apt-sim-data', 'apt-train', 'apt-pack'))


def test_plans_go_to_what_is_named(contract):
    """A policy that ignores the instruction moves to the named one of five objects in a fifth of all cases."""
    planner = load_planner(PlannerConfig(checkpoint=str(SHIPPED), device='cpu', denoising_steps=10), contract)
    simulation = Simulation(contract, rollout_scene(contract, LIGHT_RANDOMIZATION))
    rig = CameraRig(simulation)
    source = SimulatedObservationSource(simulation, rig, Stopwatch())
    headed_there = []
    for seed in range(SCENES):
        simulation.reset(seed)
        scene = ground_truth(simulation)
        source.start_episode(scene)
        start = np.stack([arm.world_from_ee[:2, 3] for arm in scene.arms.values()])
        for name in sorted(scene.objects.keys() & set(TRAIN_OBJECTS)):
            plan = planner.plan(source.snapshot(scene.stamp_ns, f'pick up the {name}'), epoch=0, prefix=None)
            ways = plan.world_from_ee[-1, :, :2, 3] - start
            arm = int(np.linalg.norm(ways, axis=1).argmax())
            headed_there.append(name == max(scene.objects, key=lambda other: _cosine(
                ways[arm], scene.objects[other][:2, 3] - start[arm])))
    rig.close()
    assert np.mean(headed_there) > 0.5, f'{sum(headed_there)} of {len(headed_there)}'


def _cosine(one, other):
    return one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
