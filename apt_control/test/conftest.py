"""Arms, solvers and bridges of the simulated robot's contract."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from apt_control.kinematics import arm_kinematics
from apt_control.solver import ArmSolver
from apt_policy.core.geometry import interpolate_pose, make_pose

pytest_plugins = ('live_programs',)

# Where the arms of other makes lie.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope='session')
def kinematics(contract):
    return arm_kinematics(contract)


@pytest.fixture
def solver(contract, kinematics):
    return ArmSolver(kinematics['left'], contract.arms['left'], contract.safety,
                     period_s=1.0 / contract.control_rate_hz)


@pytest.fixture
def start(contract):
    return np.array(contract.arms['left'].start)


@pytest.fixture
def slewed():
    """The poses of a straight way at the contract's speeds, one per control period, then of a rest."""
    def way(begin, end, ticks):
        distance = np.linalg.norm(end[:3, 3] - begin[:3, 3])
        angle = np.linalg.norm(Rotation.from_matrix(begin[:3, :3].T @ end[:3, :3]).as_rotvec())
        moving = max(distance / 0.25, angle / 1.5) * 50 + 1
        return [interpolate_pose(begin, end, min(1.0, tick / moving)) for tick in range(1, ticks + 1)]
    return way


@pytest.fixture
def anywhere():
    """Poses around an arm's base, most of them out of reach or awkward."""
    def draw(count, seed):
        random = np.random.default_rng(seed)
        positions = random.uniform((-0.1, -0.5, 0.05), (1.1, 0.5, 0.6), (count, 3))
        return make_pose(Rotation.from_quat(random.normal(size=(count, 4))).as_matrix(), positions)
    return draw
