"""Task scene, built once, and hand-made ground truth."""

import numpy as np
import pytest

from apt_policy.core.geometry import make_pose
from apt_policy.core.sample import ArmState
from apt_sim.tasks.task import GroundTruth
from apt_sim.tasks.task_scene import TaskScene
from apt_sim.world.physics import Simulation


@pytest.fixture(scope='session')
def built(contract):
    return TaskScene(Simulation(contract))


@pytest.fixture
def task_scene(built):
    """Reset to the beginning of episode 0."""
    built.reset(0)
    return built


@pytest.fixture
def scene():
    """Return a function that lays objects out at given positions, with the hands far above."""
    def lay(*, objects, trays=(), arms=None):
        away = {'left': (-0.2, 0.5, 0.35), 'right': (0.2, 0.5, 0.35)} | (arms or {})
        return GroundTruth(
            stamp_ns=10**9,
            arms={name: ArmState(world_from_ee=make_pose(np.eye(3), place), gripper=1.0)
                  for name, place in away.items()},
            objects={name: make_pose(np.eye(3), place) for name, place in dict(objects).items()},
            trays={colour: make_pose(np.eye(3), place) for colour, place in dict(trays).items()})
    return lay
