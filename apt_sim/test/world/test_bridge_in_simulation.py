"""IK bridge with the simulated arms, their weight, friction and surroundings."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from apt_control.bridge import ArmBridge, JointCommand
from apt_policy.core.geometry import invert_pose, make_pose, pose_to_quaternion
from apt_sim.world.commands import finger_command
from apt_sim.world.physics import Simulation
from apt_sim.world.scene import SceneConfig

PERIOD_S = 0.02
DOWN = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])


class Driver:
    """IK bridge with one simulated arm, ticking at the control rate."""

    def __init__(self, simulation, name):
        self.simulation, self.name = simulation, name
        self.arm = simulation.contract.arms[name]
        self.bridge = ArmBridge(simulation.contract, name)
        self.base_from_world = invert_pose(self.arm.world_from_base.matrix)

    def follow(self, world_from_ee, seconds, gripper=1.0):
        """Return every outcome and every pair of touching bodies on the way to a constant target."""
        outcomes, touched = [], set()
        for _ in range(round(seconds / PERIOD_S)):
            now_ns = self.simulation.time_ns
            readings = self.simulation.readings(self.name)
            self.bridge.update_joint_state(readings.position, readings.finger, now_ns)
            position, quaternion = pose_to_quaternion(self.base_from_world @ world_from_ee)
            self.bridge.set_target(self.arm.base_frame, position, quaternion, now_ns)
            self.bridge.set_gripper_target(gripper)
            outcomes.append(self.bridge.tick(now_ns))
            if isinstance(outcomes[-1], JointCommand):
                self.simulation.command_joints(self.name, outcomes[-1].joints)
                finger = finger_command(self.arm, self.arm.gripper_command.joint, outcomes[-1].gripper)
                self.simulation.command_finger(self.name, finger)
            self.simulation.step(10)
            touched |= self.simulation.touching()
        return outcomes, touched

    @property
    def pose(self):
        return self.simulation.world_from_ee(self.name)


def near(pose, *metres):
    moved = pose.copy()
    moved[:3, 3] += metres
    return moved


@pytest.mark.parametrize('name', ['left', 'right'])
def test_targets_anywhere_below_and_beside_the_box_never_bring_the_hand_onto_the_table(contract, name):
    random = np.random.default_rng(2)
    driver = Driver(Simulation(contract, SceneConfig(objects=(), trays=())), name)
    side = driver.arm.world_from_base.matrix[:3, :3]
    lower, upper = (np.array(corner) for corner in (driver.arm.workspace.lower, driver.arm.workspace.upper))
    driver.follow(near(driver.pose, 0.0, 0.0, 0.02), 0.5)
    lowest = np.inf
    for _ in range(10):
        tilt = Rotation.from_euler('zyx', random.uniform((-1.0, -0.5, -0.5), (1.0, 0.5, 0.5))).as_matrix()
        position = random.uniform(lower - (0.1, 0.1, 0.3), upper + (0.0, 0.1, -0.25))
        outcomes, touched = driver.follow(make_pose(side @ tilt @ DOWN, position), 2.0)
        assert not [outcome for outcome in outcomes if not isinstance(outcome, JointCommand)]
        assert not touched, 'neither the table nor the arm itself'
        lowest = min(lowest, driver.pose[2, 3])
    assert lowest < driver.arm.workspace.lower[2] + 0.01, 'the box was never tried'


def test_an_unreachable_target_comes_to_rest_at_the_nearest_pose(simulation):
    driver = Driver(simulation, 'left')
    driver.follow(near(driver.pose, 0.0, 0.0, 0.02), 0.5)
    driver.follow(near(driver.pose, 0.15, 0.0, 0.0), 1.5)
    # A rotation beyond the range of the wrist.
    backwards = make_pose(driver.pose[:3, :3] @ Rotation.from_rotvec((0.0, 3.0, 0.0)).as_matrix(),
                          driver.pose[:3, 3])
    outcomes, _ = driver.follow(backwards, 5.0)
    assert not outcomes[-1].reachable
    before = simulation.readings('left').position
    outcomes, _ = driver.follow(backwards, 0.5)
    assert np.abs(simulation.readings('left').position - before).max() < 0.05
    assert outcomes[-1].rotation_error > 0.1
    limits = driver.arm.joint_lower, driver.arm.joint_upper
    assert np.all(limits[0] - np.array(1e-6) <= before) and np.all(before <= limits[1] + np.array(1e-6))


def test_an_arm_holds_its_height_while_its_bridge_holds(simulation):
    driver = Driver(simulation, 'left')
    driver.follow(near(driver.pose, 0.05, 0.0, -0.05), 1.0)
    height = driver.pose[2, 3]
    simulation.step(2500)
    assert driver.pose[2, 3] == pytest.approx(height, abs=1e-3)


def test_a_new_episode_does_not_throw_the_arm_back(simulation):
    driver = Driver(simulation, 'left')
    there = near(driver.pose, 0.0, 0.09, 0.0)
    for _ in range(3):
        driver.follow(there, 0.6)
        there = near(there, 0.0, 0.09, 0.0)
    simulation.reset(1)
    start = driver.pose
    outcomes, _ = driver.follow(there, 0.5)
    assert not any(isinstance(outcome, JointCommand) for outcome in outcomes)
    np.testing.assert_allclose(driver.pose[:3, 3], start[:3, 3], atol=2e-3)
