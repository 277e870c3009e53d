"""The contract's chain is the only description of an arm: simulation and kinematics follow its changes."""

import dataclasses

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from apt_control.kinematics import ArmKinematics
from apt_control.solver import ArmSolver
from apt_policy.core.decode import decode_transform
from apt_policy.core.geometry import angle_between, invert_pose
from apt_policy.core.kinematics import ForwardKinematics
from apt_policy.core.placement import Chain, Joint, Placement
from apt_policy.core.transforms import TransformBuffer
from apt_sim.world import robot_assets
from apt_sim.world.arms import SceneError
from apt_sim.world.messages import LinkTransforms, static_frames
from apt_sim.world.physics import Simulation
from apt_sim.world.scene import SceneConfig, build_model

NOTHING = SceneConfig(objects=(), trays=())


def bent(chain):
    """Return the chain with every pose and axis changed a little; axes have six digits, as in files."""
    random = np.random.default_rng(3)

    def moved(place):
        turn = Rotation.from_quat(place.quaternion_xyzw) * Rotation.from_rotvec(random.uniform(-0.1, 0.1, 3))
        return Placement(translation=tuple(place.translation + random.uniform(-0.01, 0.01, 3)),
                         quaternion_xyzw=tuple(turn.as_quat()))

    def tilted(axis):
        axis = axis + random.uniform(-0.1, 0.1, 3)
        return tuple((axis / np.linalg.norm(axis)).round(7))

    return Chain(links=tuple(Joint(place=moved(link.place), axis=tilted(link.axis)) for link in chain.links),
                 ee=moved(chain.ee))


def with_arm(contract, name, **changes):
    changed = dataclasses.replace(contract.arms[name], **changes)
    return dataclasses.replace(contract, arms={**contract.arms, name: changed})


@pytest.fixture(scope='module')
def measured(contract):
    """Build the simulated robot with a recalibrated left arm."""
    return with_arm(contract, 'left', chain=bent(contract.arms['left'].chain))


@pytest.fixture(scope='module')
def simulation(measured):
    return Simulation(measured, NOTHING)


def simulated_base_from_ee(simulation, name, joints):
    arms = simulation.contract.arms
    simulation.set_static_state({arm: joints if arm == name else np.zeros(6) for arm in arms},
                                dict.fromkeys(arms, 0.05), {})
    return invert_pose(arms[name].world_from_base.matrix) @ simulation.world_from_ee(name)


@pytest.mark.parametrize('name', ['left', 'right'])
def test_forward_kinematics_solver_and_simulator_follow_a_changed_chain(contract, measured, simulation, name):
    arm, random = measured.arms[name], np.random.default_rng(0)
    kinematics, solver_model = ForwardKinematics(name, arm), ArmKinematics(name, arm)
    before = ForwardKinematics(name, contract.arms[name])
    for _ in range(20):
        joints = random.uniform(arm.joint_lower, arm.joint_upper)
        expected = kinematics.base_from_ee(joints)
        np.testing.assert_allclose(solver_model.base_from_ee(joints), expected, atol=1e-9)
        np.testing.assert_allclose(simulated_base_from_ee(simulation, name, joints), expected, atol=1e-9)
        moved = np.linalg.norm(before.base_from_ee(joints)[:3, 3] - expected[:3, 3])
        assert moved > 0.005 if name == 'left' else moved == 0.0


def test_what_the_solver_reaches_with_a_changed_chain_the_simulated_hand_reaches(measured, simulation):
    arm = measured.arms['left']
    solver = ArmSolver(ArmKinematics('left', arm), arm, measured.safety, period_s=0.02)
    joints = np.array(arm.start)
    base_from_ee = ForwardKinematics('left', arm).base_from_ee
    goal = base_from_ee(joints + (0.2, 0.1, -0.1, 0.2, 0.1, -0.2))
    for _ in range(150):
        joints = solver.step(joints, goal).joints
    reached = simulated_base_from_ee(simulation, 'left', joints)
    np.testing.assert_allclose(reached, base_from_ee(joints), atol=1e-9)
    assert np.linalg.norm(reached[:3, 3] - goal[:3, 3]) < 2e-4
    assert angle_between(reached[:3, :3], goal[:3, :3]) < 2e-3


def test_transforms_follow_a_changed_chain(measured, simulation):
    random, frames, buffer = np.random.default_rng(1), LinkTransforms(simulation), TransformBuffer()
    joints = {name: random.uniform(arm.joint_lower, arm.joint_upper) for name, arm in measured.arms.items()}
    for edge in static_frames(0, simulation).transforms:
        buffer.set_static_transform(decode_transform(edge))
    for edge in frames.to_message(0, joints).transforms:
        buffer.set_transform(decode_transform(edge))
    for name, arm in measured.arms.items():
        np.testing.assert_allclose(buffer.lookup(arm.base_frame, arm.ee_frame, 0),
                                   ForwardKinematics(name, arm).base_from_ee(joints[name]), atol=1e-9)
        assert buffer.lookup(arm.base_frame, f'follower_{name}/wrist_link', 0).shape == (4, 4)


def test_joints_and_motors_turn_as_far_as_the_contract_lets_them(contract):
    lower, upper = (-1.0, -0.9, -0.8, -2.0, -1.5, -0.5), (0.5, 0.6, 1.7, 2.1, 2.2, 3.0)
    model = build_model(with_arm(contract, 'left', joint_lower=lower, joint_upper=upper), NOTHING)
    joints = [model.joint(f'vx300s_left/{joint}') for joint in contract.arms['left'].joints]
    limits = np.stack([lower, upper], axis=1)
    np.testing.assert_array_equal([joint.range for joint in joints], limits)
    motor_of = dict(zip(model.actuator_trnid[:, 0].tolist(), model.actuator_ctrlrange, strict=True))
    np.testing.assert_array_equal([motor_of[joint.id] for joint in joints], limits)


def test_the_shipped_chain_is_the_one_that_gym_aloha_describes(contract):
    described = mujoco.MjSpec.from_file(str(robot_assets.bimanual_viperx()))
    for name, arm in contract.arms.items():
        for joint, link, axis in zip(arm.joints, arm.chain.links, arm.chain.axes, strict=True):
            found = described.joint(f'vx300s_{name}/{joint}')
            np.testing.assert_array_equal(found.axis, axis)
            np.testing.assert_array_equal(found.parent.pos, link.place.translation)
            np.testing.assert_array_equal(found.parent.quat, (1.0, 0.0, 0.0, 0.0))
            assert link.place.quaternion_xyzw == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(('changes', 'error_text'), [
    ({'chain': None}, r'arms\.left\.chain is not in the contract, so the simulator .* add the chain'),
    ({'joints': tuple('abcdef')},
     r'arms\.left\.joints is a, b, c, d, e, f; expected those of the simulated arm: waist')])
def test_an_arm_that_does_not_fit_the_simulated_one_is_rejected(contract, changes, error_text):
    with pytest.raises(SceneError, match=error_text):
        build_model(with_arm(contract, 'left', **changes), NOTHING)
