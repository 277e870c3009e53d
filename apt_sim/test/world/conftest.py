"""Simulated robot, built once."""

import numpy as np
import pytest

from apt_control.kinematics import arm_kinematics
from apt_control.solver import ArmSolver
from apt_policy.core.geometry import angle_between, interpolate_pose, invert_pose, make_pose
from apt_sim.tasks.grasp import EE_FROM_TOOL_CENTRE
from apt_sim.world.cameras import CameraRig
from apt_sim.world.physics import Simulation


@pytest.fixture(scope='session')
def built(contract):
    return Simulation(contract)


@pytest.fixture(scope='session')
def rig(built):
    with CameraRig(built) as rig:
        yield rig


@pytest.fixture
def simulation(built):
    """Reset to the beginning of episode 0."""
    built.reset(0)
    return built


class Hand:
    """Driver that moves one simulated hand through poses within the speed limits of the contract."""

    def __init__(self, simulation, arm):
        contract = simulation.contract
        self._simulation, self._arm = simulation, arm
        self._period_s = 1.0 / contract.control_rate_hz
        self._steps = round(self._period_s / simulation.settings.timestep_s)
        self._limits = contract.safety
        self._base_from_world = invert_pose(contract.arms[arm].world_from_base.matrix)
        self._solver = ArmSolver(arm_kinematics(contract)[arm], contract.arms[arm], contract.safety,
                                 period_s=self._period_s)
        self.joints = np.array(contract.arms[arm].start)

    def servo(self, world_from_ee):
        """Step one control period towards a pose and return the solver's solution."""
        solution = self._solver.step(self.joints, self._base_from_world @ world_from_ee)
        self.joints = solution.joints
        self._simulation.command_joints(self._arm, self.joints)
        self._simulation.step(self._steps)
        return solution

    def go(self, world_from_ee):
        """Move along a straight line, then rest for half a second."""
        start = self._simulation.world_from_ee(self._arm)
        distance = np.linalg.norm(world_from_ee[:3, 3] - start[:3, 3])
        angle = angle_between(start[:3, :3], world_from_ee[:3, :3])
        slowest_s = max(distance / self._limits.linear_speed, angle / self._limits.angular_speed)
        ticks = int(slowest_s / self._period_s) + 1
        for tick in range(1, ticks + 25):
            self.servo(interpolate_pose(start, world_from_ee, min(1.0, tick / ticks)))

    def squeeze(self, finger):
        """Command the fingers and wait a second."""
        self._simulation.command_finger(self._arm, finger)
        self._simulation.step(500)


@pytest.fixture
def hand_of(simulation):
    return lambda arm: Hand(simulation, arm)


@pytest.fixture
def from_above():
    """Return the pose of a hand that points down, with its tool centre at a point and fingers along ``yaw``."""
    def pose(point, yaw, height):
        rotation = np.column_stack([(0.0, 0.0, -1.0), (-np.sin(yaw), np.cos(yaw), 0.0),
                                    (np.cos(yaw), np.sin(yaw), 0.0)])
        return make_pose(rotation, (point[0], point[1], height + EE_FROM_TOOL_CENTRE[0]))
    return pose
