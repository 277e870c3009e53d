"""Inverse kinematics: exact where a pose is in reach, calm where it is not."""

import dataclasses

import numpy as np
import pytest

from apt_control.kinematics import ArmKinematics
from apt_control.solver import ArmSolver
from apt_policy.core.geometry import angle_between
from apt_policy.core.kinematics import KinematicsError, forward_kinematics

PERIOD_S = 0.02


def follow(solver, joints, poses):
    """Joints (T, J) and the last solution along a way."""
    way = []
    for pose in poses:
        solution = solver.step(joints, pose)
        joints = solution.joints
        way.append(joints)
    return np.array(way), solution


def test_forward_kinematics_at_zero_is_the_sum_of_the_links(kinematics):
    # Interbotix' URDF: all joints at zero stretch the arm forward at the shoulder's height plus 0.3 m.
    pose = kinematics['left'].base_from_ee(np.zeros(6))
    np.testing.assert_allclose(pose[:3, :3], np.eye(3), atol=1e-12)
    reach = 0.05955 + 0.2 + 0.1 + 0.069744 + 0.1072
    np.testing.assert_allclose(pose[:3, 3], (reach, 0.0, 0.42705), atol=1e-9)


@pytest.mark.parametrize(('joint', 'moves'), [
    ('waist', (0.0, 1.0, 0.0)), ('shoulder', (0.3, 0.0, -0.53)), ('elbow', (0.0, 0.0, -0.47))],
    ids=lambda value: value if isinstance(value, str) else '')
def test_joints_turn_the_way_that_interbotix_defines(kinematics, contract, joint, moves):
    joints = np.zeros(6)
    joints[contract.arms['left'].joints.index(joint)] = 1e-6
    fk = kinematics['left'].base_from_ee
    velocity = (fk(joints) - fk(np.zeros(6)))[:3, 3] / 1e-6
    np.testing.assert_array_equal(np.sign(velocity.round(3)), np.sign(moves))


def test_a_reachable_pose_is_reached_exactly(solver, kinematics, slewed, start):
    random = np.random.default_rng(1)
    fk = kinematics['left'].base_from_ee
    for _ in range(5):
        goal = start + random.uniform(-0.4, 0.4, 6)
        _, solution = follow(solver, start, slewed(fk(start), fk(goal), 250))
        assert solution.position_error < 2e-4
        assert solution.rotation_error < 2e-3
        np.testing.assert_allclose(fk(solution.joints), solution.base_from_ee, atol=1e-12)


def test_a_target_out_of_reach_comes_to_rest_within_limits(solver, contract, kinematics, slewed, anywhere,
                                                           start):
    arm, begin = contract.arms['left'], kinematics['left'].base_from_ee(start)
    out_of_reach = 0
    for goal in anywhere(8, seed=0):
        way, solution = follow(solver, start, slewed(begin, goal, 450))
        steps = np.diff(way, axis=0, prepend=start[None])
        assert np.all(way >= np.array(arm.joint_lower) - 1e-9)
        assert np.all(way <= np.array(arm.joint_upper) + 1e-9)
        assert np.abs(steps).max() <= arm.joint_velocity * PERIOD_S + 1e-9
        assert np.abs(steps[-25:]).max() < 0.1 * PERIOD_S
        out_of_reach += solution.position_error > 0.005 or solution.rotation_error > 0.1
    assert out_of_reach >= 4


def test_the_nearest_point_is_found_where_only_distance_is_wrong(solver, kinematics, slewed, start):
    begin = kinematics['left'].base_from_ee(start)
    goal = begin.copy()
    goal[0, 3] += 1.0
    _, solution = follow(solver, start, slewed(begin, goal, 500))
    # Straight from the shoulder, which is where a stretched arm points.
    shoulder = np.array([0.0, 0.0, 0.12705])
    reach = np.hypot(0.3, 0.05955) + 0.2 + 0.1 + 0.069744 + 0.1072
    assert np.linalg.norm(solution.base_from_ee[:3, 3] - shoulder) > 0.97 * reach
    assert solution.position_error == pytest.approx(np.linalg.norm(goal[:3, 3] - shoulder) - reach, abs=0.02)


def test_the_hand_never_rushes_whatever_the_target_does(solver, contract, kinematics, anywhere, start):
    fk, joints = kinematics['left'].base_from_ee, start
    for goal in anywhere(8, seed=5):
        for _ in range(30):
            before, joints = fk(joints), solver.step(joints, goal).joints
            after = fk(joints)
            distance = np.linalg.norm(after[:3, 3] - before[:3, 3])
            angle = angle_between(after[:3, :3], before[:3, :3])
            # Half as much again is allowed for catching up, and a way along an arc is no straight line.
            assert distance <= 1.6 * contract.safety.linear_speed * PERIOD_S
            assert angle <= 1.6 * contract.safety.angular_speed * PERIOD_S


def test_joints_beyond_their_limits_come_back_and_never_go_farther(solver, contract, kinematics, start):
    # The sleep pose of Interbotix lies outside the limits of its own description.
    sleep, arm = np.array([0.0, -2.05, 1.7, 0.0, -2.0, 0.0]), contract.arms['left']
    way, _ = follow(solver, sleep, [kinematics['left'].base_from_ee(start)] * 200)
    over = np.maximum(np.maximum(way - arm.joint_upper, arm.joint_lower - way), 0.0)
    assert over[0].max() > 0.0
    assert np.all(np.diff(over, axis=0) <= 1e-12)
    assert over[-1].max() == 0.0


def test_an_arm_whose_chain_the_contract_lacks_is_refused(contract):
    with pytest.raises(KinematicsError, match=r'arms\.left\.chain is not in the contract, so inverse kinematics'):
        ArmKinematics('left', dataclasses.replace(contract.arms['left'], chain=None))


def test_unset_speeds_leave_the_hand_to_the_joint_limits(contract, kinematics, start):
    unlimited = dataclasses.replace(contract.safety, linear_speed=None, angular_speed=None)
    solver = ArmSolver(kinematics['left'], contract.arms['left'], unlimited, period_s=PERIOD_S)
    goal = kinematics['left'].base_from_ee(start + 0.3)
    fastest = np.abs(solver.step(start, goal).joints - start).max()
    assert fastest == pytest.approx(contract.arms['left'].joint_velocity * PERIOD_S)


def test_the_chain_of_the_contract_is_the_one_that_the_solver_differentiates(contract, kinematics):
    rng = np.random.default_rng(4)
    for name, chain in forward_kinematics(contract).items():
        arm = contract.arms[name]
        for joints in rng.uniform(arm.joint_lower, arm.joint_upper, (50, 6)):
            np.testing.assert_allclose(chain.base_from_ee(joints), kinematics[name].base_from_ee(joints), atol=1e-9)
