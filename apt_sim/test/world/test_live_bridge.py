"""IK bridge as a process beside the simulator."""

import math
import signal

import numpy as np
import pytest
from apt_msgs.msg import IkStatus
from geometry_msgs.msg import PoseStamped
from interbotix_xs_msgs.msg import JointGroupCommand
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64
from std_srvs.srv import Trigger

from apt_control.kinematics import arm_kinematics
from apt_policy.core.sample import HoldReason
from apt_policy.ros import encode
from apt_policy.ros.qos import Role, profile

NAME = 'left'
PERIOD_S = 0.02


class Cell:
    """Simulator and bridge as processes, with the test in place of the policy."""

    def __init__(self, ear, contract):
        self.ear, self.arm = ear, contract.arms[NAME]
        self.fk = arm_kinematics(contract)[NAME].base_from_ee
        self.states = ear.hear(JointState, self.arm.joint_states_topic, Role.STATE)
        self.statuses = ear.hear(IkStatus, f'apt/{NAME}/ik_status', Role.STATUS)
        self.commands = ear.hear(JointGroupCommand, self.arm.joint_group_topic, Role.COMMAND)
        self.pose_out = self.publisher()
        self.gripper_out = ear.node.create_publisher(Float64, f'apt/{NAME}/target_gripper',
                                                     profile(Role.TARGET))
        assert ear.until(lambda: self.states and self.statuses), 'simulator or bridge is silent'
        assert ear.until(lambda: self.pose_out.get_subscription_count() > 0)

    def publisher(self):
        return self.ear.node.create_publisher(PoseStamped, f'apt/{NAME}/target_pose', profile(Role.TARGET))

    @property
    def pose(self):
        return self.fk(np.array(self.states[-1].position[:6]))

    @property
    def status(self):
        return self.statuses[-1]

    def aim(self, pose, gripper=1.0, frame=None):
        self.pose_out.publish(encode.pose_stamped(0, frame or self.arm.base_frame, pose))
        self.gripper_out.publish(Float64(data=gripper))

    def aim_until(self, pose, condition, **options):
        """Repeat the target and return whether the condition became true."""
        return self.ear.until(lambda: self.aim(pose, **options) or self.ear.spin(PERIOD_S) or condition())

    def distance_to(self, pose):
        return np.linalg.norm(self.pose[:3, 3] - pose[:3, 3])

    def holds(self, reason):
        return self.status.holding and self.status.hold_reason == reason

    def hears_only_silence(self):
        """Return whether the bridge sends nothing for a while of simulated time."""
        self.ear.spin(0.1)
        before = len(self.commands)
        seen = len(self.states)
        assert self.ear.until(lambda: len(self.states) > seen + 30)
        return len(self.commands) == before


def shifted(pose, *metres):
    moved = pose.copy()
    moved[:3, 3] += metres
    return moved


@pytest.fixture(scope='module')
def simulator(run_program):
    return run_program('apt_sim.world.node', render='false')


@pytest.fixture(scope='module')
def bridge(run_program):
    return run_program('apt_control.node', use_sim_time='true')


@pytest.fixture(scope='module')
def cell(simulator, bridge, ear, contract):
    return Cell(ear, contract)


def test_without_a_target_nothing_is_sent(cell):
    # Without joint states the bridge reports those as missing first.
    assert cell.ear.until(lambda: cell.holds(HoldReason.MISSING_STREAM) and 'no target yet' in cell.status.detail)
    assert cell.hears_only_silence()


def test_an_arm_follows_its_target_and_holds_when_the_targets_stop(cell, bridge):
    goal = shifted(cell.pose, 0.03, 0.05, -0.04)
    assert cell.aim_until(goal, lambda: cell.distance_to(goal) < 0.002), bridge.log()
    assert cell.aim_until(goal, lambda: not cell.status.holding and cell.status.reachable)
    assert cell.status.position_error < 1e-3
    assert cell.ear.until(lambda: cell.holds(HoldReason.STALE_STREAM))
    assert cell.hears_only_silence()
    assert cell.distance_to(goal) < 0.003


def test_the_gripper_follows_its_target(cell):
    half_open = 0.021 + 0.5 * 0.036
    assert cell.aim_until(cell.pose, lambda: abs(cell.states[-1].position[7] - half_open) < 2e-3, gripper=0.5)


@pytest.mark.parametrize(('spoil', 'reason'), [
    (lambda pose: shifted(pose, math.nan, 0.0, 0.0), HoldReason.NON_FINITE),
    (lambda pose: shifted(pose, 0.0, 0.4, 0.0), HoldReason.FAR_FROM_CURRENT)], ids=['nan', 'far away'])
def test_a_target_that_no_arm_should_follow_is_refused(cell, spoil, reason):
    here = cell.pose
    assert cell.aim_until(here, lambda: not cell.status.holding)
    assert cell.ear.until(lambda: cell.holds(HoldReason.STALE_STREAM))
    assert cell.hears_only_silence()
    message = encode.pose_stamped(0, cell.arm.base_frame, here)
    wrong = spoil(here)[:3, 3]
    message.pose.position.x, message.pose.position.y, message.pose.position.z = wrong.tolist()
    assert cell.ear.until(
        lambda: cell.pose_out.publish(message) or cell.ear.spin(PERIOD_S) or cell.holds(reason))
    assert cell.hears_only_silence()
    assert cell.distance_to(here) < 0.003


def test_a_second_publisher_holds_the_arm_until_it_is_gone(cell):
    here = cell.pose
    assert cell.aim_until(here, lambda: not cell.status.holding)
    rival = cell.publisher()
    assert cell.aim_until(here, lambda: cell.holds(HoldReason.SECOND_PUBLISHER))
    assert f'apt/{NAME}/target_pose has 2 publishers' in cell.status.detail
    cell.ear.node.destroy_publisher(rival)
    assert cell.aim_until(here, lambda: not cell.status.holding)


def test_an_unreachable_target_is_reported_while_the_arm_stays_near_it(cell):
    pose = cell.pose
    turned = pose.copy()

    def given_up():
        return not cell.status.holding and not cell.status.reachable and cell.status.rotation_error > 0.2

    # The wrist cannot rotate that far back; in steps, because a target far from the arm would be rejected.
    for angle in np.arange(0.3, 3.1, 0.3):
        turned[:3, :3] = pose[:3, :3] @ Rotation.from_rotvec((0.0, -angle, 0.0)).as_matrix()
        cell.ear.until(lambda: cell.aim(turned) or cell.ear.spin(PERIOD_S) or given_up(), 0.5)
    assert cell.ear.until(lambda: cell.aim(turned) or cell.ear.spin(PERIOD_S) or given_up())
    assert cell.distance_to(pose) < 0.1


def test_a_new_episode_does_not_throw_the_arm_back(cell, contract):
    home = np.array(contract.arms[NAME].start)
    there = cell.fk(np.array(cell.states[-1].position[:6]))
    assert cell.distance_to(cell.fk(home)) > 0.02

    def is_home():
        return np.abs(np.array(cell.states[-1].position[:6]) - home).max() < 0.01

    # The policy does not know of the reset and continues to send.
    reset = cell.ear.node.create_client(Trigger, 'aloha_sim/reset')
    assert reset.wait_for_service(10.0)
    answer = reset.call_async(Trigger.Request())
    assert cell.aim_until(there, lambda: answer.done() and is_home())
    assert cell.aim_until(there, lambda: cell.holds(HoldReason.FAR_FROM_CURRENT))
    for _ in range(20):
        cell.aim(there)
        cell.ear.spin(PERIOD_S)
        assert is_home()


def test_a_simulator_that_starts_again_is_followed_again(cell, simulator, run_program, bridge):
    simulator.stop()
    seen = len(cell.states)
    run_program('apt_sim.world.node', render='false')
    assert cell.ear.until(lambda: len(cell.states) > seen + 20)
    here = cell.pose
    assert cell.aim_until(here, lambda: not cell.status.holding), bridge.log()
    assert 'CLOCK_JUMP' in bridge.log()


def test_the_bridge_ends_cleanly_and_the_arm_stays(cell, bridge):
    here = cell.pose
    assert bridge.stop(signal.SIGTERM) == 0
    seen = len(cell.states)
    assert cell.ear.until(lambda: len(cell.states) > seen + 30)
    assert cell.distance_to(here) < 0.003
    assert 'Traceback' not in bridge.log()
