"""Simulation for static scenes, built once."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from apt_policy.core.contract import load_contract
from apt_sim.evaluation.rollout import LIGHT_AND_CAMERA_RANDOMIZATION, rollout_scene
from apt_sim.vqa.static_scene import StaticSceneSampler
from apt_sim.world.cameras import CameraRig
from apt_sim.world.physics import Simulation


@pytest.fixture(scope='session')
def small_file():
    return Path(__file__).parents[3] / 'apt_bringup' / 'config' / 'aloha_small.yaml'


@pytest.fixture(scope='session')
def studio(small_file):
    """Build a simulation, its cameras, and a sampler of static scenes."""
    contract = load_contract(small_file)
    simulation = Simulation(contract, rollout_scene(contract, LIGHT_AND_CAMERA_RANDOMIZATION))
    with CameraRig(simulation) as rig:
        yield SimpleNamespace(contract=contract, simulation=simulation, rig=rig,
                              sampler=StaticSceneSampler(contract, simulation))
