"""What the bridge sends, and when it holds instead. Time is a number here."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from apt_control.bridge import ArmBridge, BridgeConfig, JointCommand
from apt_policy.core.geometry import pose_to_quaternion
from apt_policy.core.sample import Hold, HoldReason

FRAME = 'follower_left/base_link'
TICK_NS = 20_000_000
UPRIGHT = np.array([0.0, 0.0, 0.0, 1.0])


class Driven:
    """A bridge and a perfect arm: what is commanded is measured at the next tick."""

    def __init__(self, contract, kinematics, **settings):
        self.bridge = ArmBridge(contract, 'left', BridgeConfig(**settings))
        self.fk = kinematics['left'].base_from_ee
        self.joints = np.array(contract.arms['left'].start)
        self.finger = 0.057
        self.now_ns = 1_000_000_000
        self.pose = self.fk(self.joints)

    def aim(self, pose, gripper=None, frame=FRAME):
        self.pose = pose
        position, quaternion = pose_to_quaternion(pose)
        self.bridge.set_target(frame, position, quaternion, self.now_ns)
        if gripper is not None:
            self.bridge.set_gripper_target(gripper)

    def shifted(self, *metres):
        pose = self.fk(self.joints).copy()
        pose[:3, 3] += metres
        return pose

    def tick(self, *, measure=True):
        self.now_ns += TICK_NS
        if measure:
            self.bridge.update_joint_state(self.joints.copy(), self.finger, self.now_ns)
        outcome = self.bridge.tick(self.now_ns)
        if isinstance(outcome, JointCommand):
            self.joints = outcome.joints
        return outcome

    def follow(self, ticks, **aim):
        for _ in range(ticks):
            self.aim(self.pose, **aim)
            outcome = self.tick()
        return outcome


@pytest.fixture
def driven(contract, kinematics):
    return Driven(contract, kinematics)


def reason(outcome):
    assert isinstance(outcome, Hold), outcome
    return outcome.reason


def test_nothing_is_sent_before_the_first_joint_state(driven):
    driven.aim(driven.pose)
    outcome = driven.tick(measure=False)
    assert reason(outcome) is HoldReason.MISSING_STREAM
    assert 'follower_left/joint_states' in outcome.detail


def test_nothing_is_sent_without_a_target(driven):
    assert reason(driven.tick()) is HoldReason.MISSING_STREAM


def test_a_target_is_reached_at_the_contracts_speed(driven, contract):
    goal = driven.shifted(0.0, 0.05, 0.02)
    driven.aim(goal)
    outcome = driven.follow(5)
    covered = np.linalg.norm(driven.fk(driven.joints)[:3, 3] - driven.fk(contract.arms['left'].start)[:3, 3])
    assert covered == pytest.approx(5 * 0.02 * contract.safety.linear_speed, rel=0.05)
    outcome = driven.follow(30)
    np.testing.assert_allclose(driven.fk(driven.joints), goal, atol=1e-3)
    assert outcome.reachable and outcome.position_error < 1e-3


def test_commands_start_from_the_measured_joints(driven):
    driven.aim(driven.pose)
    before = driven.joints.copy()
    np.testing.assert_allclose(driven.tick().joints, before, atol=2e-3)


@pytest.mark.parametrize('opening', [0.0, 0.3, 1.0])
def test_the_gripper_is_commanded_in_the_contracts_unit(driven, contract, kinematics, opening):
    radians = dataclasses.replace(contract.arms['left'], gripper_command=dataclasses.replace(
        contract.arms['left'].gripper_command, closed=0.6197, open=1.6214))
    other = dataclasses.replace(contract, arms={**contract.arms, 'left': radians})
    for robot, closed, open_ in ((contract, 0.021, 0.057), (other, 0.6197, 1.6214)):
        driven = Driven(robot, kinematics)
        outcome = driven.follow(60, gripper=opening)
        assert outcome.gripper == pytest.approx(closed + opening * (open_ - closed))


def test_without_a_gripper_target_the_gripper_stays_as_it_was(driven):
    driven.finger = 0.0397
    first = driven.follow(1).gripper
    driven.finger = 0.0395
    assert driven.follow(20).gripper == first


def test_a_stream_that_ends_holds_the_last_command_and_may_go_on(driven):
    driven.aim(driven.shifted(0.0, 0.1, 0.0))
    driven.follow(10)
    still = driven.joints.copy()
    for _ in range(9):
        driven.tick()
    outcome = driven.tick()
    while isinstance(outcome, JointCommand):
        outcome = driven.tick()
    assert reason(outcome) is HoldReason.STALE_STREAM
    assert np.linalg.norm(driven.joints - still) > 0.0, 'a target stays valid for its time'
    sagged = driven.joints.copy()
    commanded, driven.joints = driven.joints, sagged + 0.01
    driven.aim(driven.fk(commanded))
    np.testing.assert_allclose(driven.tick().joints, commanded, atol=2e-3)


@pytest.mark.parametrize(('spoil', 'expected'), [
    (lambda d: d.bridge.set_target(FRAME, np.array([0.2, math.nan, 0.2]), UPRIGHT, d.now_ns),
     HoldReason.NON_FINITE),
    (lambda d: d.bridge.set_target(FRAME, np.zeros(3), UPRIGHT + math.inf, d.now_ns), HoldReason.NON_FINITE),
    (lambda d: d.bridge.set_target(FRAME, np.zeros(3), 0.0 * UPRIGHT, d.now_ns), HoldReason.BAD_INPUT),
    (lambda d: d.aim(d.pose, frame='world'), HoldReason.BAD_INPUT),
    (lambda d: d.aim(d.pose, frame=''), HoldReason.BAD_INPUT),
    (lambda d: d.bridge.set_gripper_target(math.nan), HoldReason.NON_FINITE),
    (lambda d: d.bridge.report_joint_state_fault("joint 'elbow' has position nan"), HoldReason.BAD_INPUT),
    (lambda d: d.bridge.set_other_publishers('two publishers'), HoldReason.SECOND_PUBLISHER),
], ids=['nan pose', 'infinite quaternion', 'zero quaternion', 'other frame', 'no frame', 'nan gripper',
        'nan joints', 'second publisher'])
def test_bad_input_holds_and_good_input_goes_on(driven, spoil, expected):
    driven.aim(driven.shifted(0.0, 0.03, 0.0))
    driven.follow(40, gripper=1.0)
    resting, wanted = driven.joints.copy(), driven.pose
    spoil(driven)
    driven.now_ns += TICK_NS
    assert reason(driven.bridge.tick(driven.now_ns)) is expected
    driven.bridge.set_other_publishers('')
    driven.aim(wanted, gripper=1.0)
    np.testing.assert_allclose(driven.tick().joints, resting, atol=2e-3)


def test_joint_states_that_stop_hold_the_arm(driven, contract):
    driven.follow(3)
    for _ in range(int(contract.arms['left'].max_age_s * 50) + 1):
        driven.aim(driven.pose)
        outcome = driven.tick(measure=False)
    assert reason(outcome) is HoldReason.STALE_STREAM
    assert 'joint state is 0.1' in outcome.detail


def test_a_first_target_far_from_the_arm_is_refused(driven):
    driven.aim(driven.shifted(0.0, 0.3, 0.0))
    outcome = driven.tick()
    assert reason(outcome) is HoldReason.FAR_FROM_CURRENT
    assert '0.300 m' in outcome.detail


def test_an_arm_that_something_stopped_is_not_pushed_on(driven, contract):
    driven.aim(driven.shifted(0.0, 0.09, 0.0))
    driven.follow(10)
    blocked = driven.joints.copy()
    for step in np.linspace(0.0, 0.7, 15):
        driven.joints = blocked + (step, 0.0, 0.0, 0.0, 0.0, 0.0)
        driven.aim(driven.pose)
        driven.now_ns += TICK_NS
        driven.bridge.update_joint_state(driven.joints, driven.finger, driven.now_ns)
        outcome = driven.bridge.tick(driven.now_ns)
        if isinstance(outcome, Hold):
            break
    assert reason(outcome) is HoldReason.FAR_FROM_CURRENT
    assert 'rad from its command' in outcome.detail
    # It goes on from where the arm is, once a target is near it.
    driven.aim(driven.fk(driven.joints))
    np.testing.assert_allclose(driven.tick().joints, driven.joints, atol=2e-3)


def test_an_arm_that_is_set_elsewhere_is_not_driven_back(driven, contract):
    driven.aim(driven.shifted(0.0, 0.09, 0.0))
    driven.follow(20)
    driven.joints = np.array(contract.arms['left'].start) - (0.45, 0.0, 0.0, 0.0, 0.0, 0.0)
    driven.aim(driven.pose)
    assert reason(driven.tick()) is HoldReason.FAR_FROM_CURRENT
    driven.aim(driven.fk(driven.joints))
    np.testing.assert_allclose(driven.tick().joints, driven.joints, atol=2e-3)


def test_time_that_goes_back_holds_until_everything_is_fresh(driven):
    driven.follow(5)
    driven.now_ns -= 900_000_000
    outcome = driven.bridge.tick(driven.now_ns)
    assert reason(outcome) is HoldReason.CLOCK_JUMP
    assert reason(driven.tick(measure=False)) is HoldReason.MISSING_STREAM
    assert reason(driven.tick()) is HoldReason.MISSING_STREAM
    driven.aim(driven.pose)
    assert isinstance(driven.tick(), JointCommand)


def test_targets_outside_the_workspace_are_followed_to_its_face(driven, contract):
    arm = contract.arms['left']
    for _ in range(12):
        driven.aim(driven.shifted(0.0, 0.0, -0.09))
        driven.follow(12)
    position = (arm.world_from_base.matrix @ driven.fk(driven.joints))[:3, 3]
    assert position[2] == pytest.approx(arm.workspace.lower[2], abs=2e-3)


def test_an_unreachable_target_is_reported_as_such(driven):
    outcome = driven.follow(1)
    turn = Rotation.from_rotvec((0.0, -0.3, 0.0)).as_matrix()
    for _ in range(200):
        pose = driven.fk(driven.joints).copy()
        pose[:3, :3] = pose[:3, :3] @ turn
        driven.aim(pose)
        outcome = driven.tick()
        if not outcome.reachable:
            break
    # The wrist has bent as far as it goes: what is sent is not what was asked for, and the rest is reported.
    assert not outcome.reachable
    reached = driven.fk(outcome.joints)
    assert outcome.rotation_error > 0.1 or outcome.position_error > 0.005
    assert outcome.position_error <= np.linalg.norm(reached[:3, 3] - pose[:3, 3]) + 1e-9
