"""The simulated table of all stills, built once."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from apt_policy.core.contract import load_contract
from apt_sim.evaluation.trial import LIGHTS_AND_CAMERAS, trial_scene
from apt_sim.vqa.still import StillDrawer
from apt_sim.world.cameras import CameraRig
from apt_sim.world.physics import Simulation


@pytest.fixture(scope='session')
def small_file():
    return Path(__file__).parents[3] / 'apt_bringup' / 'config' / 'aloha_small.yaml'


@pytest.fixture(scope='session')
def studio(small_file):
    """A simulation, its cameras, and who draws stills of it."""
    contract = load_contract(small_file)
    simulation = Simulation(contract, trial_scene(contract, LIGHTS_AND_CAMERAS))
    with CameraRig(simulation) as rig:
        yield SimpleNamespace(contract=contract, simulation=simulation, rig=rig,
                              drawer=StillDrawer(contract, simulation))
