"""Kinematics and bridge of arms that are no ViperX: the contract's chain is all that they know."""

import dataclasses

import numpy as np
import pytest
from other_arms import Crooked, panda, panda_base_from_ee

from apt_control.bridge import ArmBridge, JointCommand
from apt_control.kinematics import ArmKinematics
from apt_control.solver import ArmSolver
from apt_policy.core.geometry import angle_between, interpolate_pose, invert_pose, pose_to_quaternion
from apt_policy.core.kinematics import ForwardKinematics

PERIOD_S = 0.02
TICK_NS = 20_000_000


def crooked(joints):
    arm = Crooked(joints)
    return arm.contract, arm.base_from_ee


ARMS = {'panda': (panda, panda_base_from_ee), 'crooked 7': crooked(7)}
ANY = {**ARMS, 'crooked 1': crooked(1), 'crooked 4': crooked(4), 'crooked 9': crooked(9)}


@pytest.fixture(params=ARMS)
def other(request, contract):
    """The contract of another arm with seven joints, and its oracle."""
    make, oracle = ARMS[request.param]
    return make(contract), oracle


def drawn(arm, random):
    return random.uniform(arm.joint_lower, arm.joint_upper)


@pytest.mark.parametrize('name', ANY)
def test_forward_kinematics_are_those_of_the_published_numbers(contract, name):
    make, oracle = ANY[name]
    arm = make(contract).arms['only']
    of_poses, of_solver, random = ForwardKinematics('only', arm), ArmKinematics('only', arm), np.random.default_rng(0)
    for joints in (drawn(arm, random) for _ in range(50)):
        np.testing.assert_allclose(of_poses.base_from_ee(joints), oracle(joints), atol=1e-9)
        np.testing.assert_allclose(of_solver.base_from_ee(joints), oracle(joints), atol=1e-9)


def test_a_reachable_pose_is_reached_by_seven_joints(other):
    contract, oracle = other
    arm, random = contract.arms['only'], np.random.default_rng(1)
    solver = ArmSolver(ArmKinematics('only', arm), arm, contract.safety, period_s=PERIOD_S)
    start = np.array(arm.start)
    for _ in range(5):
        goal = oracle(np.clip(start + random.uniform(-0.4, 0.4, 7), arm.joint_lower, arm.joint_upper))
        joints, begin = start, oracle(start)
        for tick in range(1, 301):
            solution = solver.step(joints, interpolate_pose(begin, goal, min(1.0, tick / 200)))
            assert np.abs(solution.joints - joints).max() <= arm.joint_velocity * PERIOD_S + 1e-9
            joints = solution.joints
        reached = oracle(joints)
        assert np.linalg.norm(reached[:3, 3] - goal[:3, 3]) < 2e-4
        assert angle_between(reached[:3, :3], goal[:3, :3]) < 2e-3
        assert np.all(joints >= arm.joint_lower) and np.all(joints <= arm.joint_upper)


def test_a_target_out_of_reach_comes_to_rest_within_limits(other):
    contract, oracle = other
    arm = contract.arms['only']
    solver = ArmSolver(ArmKinematics('only', arm), arm, contract.safety, period_s=PERIOD_S)
    begin, joints, way = oracle(arm.start), np.array(arm.start), []
    goal = begin.copy()
    goal[:3, 3] += (1.5, 0.5, 1.0)
    for tick in range(1, 601):
        solution = solver.step(joints, interpolate_pose(begin, goal, min(1.0, tick / 400)))
        joints = solution.joints
        way.append(joints)
    assert solution.position_error > 0.1
    assert np.abs(np.diff(way[-25:], axis=0)).max() < 0.1 * PERIOD_S
    assert np.all(way >= np.array(arm.joint_lower) - 1e-9) and np.all(way <= np.array(arm.joint_upper) + 1e-9)


def test_the_bridge_sends_as_many_joints_as_the_contract_has(other):
    contract, oracle = other
    arm = contract.arms['only']
    bridge, joints, now_ns = ArmBridge(contract, 'only'), np.array(arm.start), 1_000_000_000
    goal = oracle(joints)
    goal[:3, 3] += (0.03, -0.02, 0.02)
    position, quaternion = pose_to_quaternion(goal)
    for _ in range(100):
        now_ns += TICK_NS
        bridge.update_joint_state(joints, 0.057, now_ns)
        bridge.set_target('other/base', position, quaternion, now_ns)
        outcome = bridge.tick(now_ns)
        assert isinstance(outcome, JointCommand), outcome
        joints = outcome.joints
    assert joints.shape == (len(arm.joints),) and outcome.reachable
    np.testing.assert_allclose((invert_pose(goal) @ oracle(joints))[:3, 3], 0.0, atol=2e-4)


def test_an_arm_of_three_joints_is_taken_as_near_as_it_can_come(contract):
    arm_of = Crooked(3)
    other = arm_of.contract(contract)
    arm = other.arms['only']
    solver = ArmSolver(ArmKinematics('only', arm), arm, dataclasses.replace(other.safety, linear_speed=None),
                       period_s=PERIOD_S)
    goal, joints = arm_of.base_from_ee(arm_of.start + (0.3, -0.3, 0.3)), np.array(arm.start)
    for _ in range(200):
        solution = solver.step(joints, goal)
        joints = solution.joints
    assert solution.position_error < 2e-3
