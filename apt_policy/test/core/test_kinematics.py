"""Forward kinematics of a chain that a contract describes."""

import numpy as np
import pytest

from apt_policy.core.contract import ContractError
from apt_policy.core.kinematics import ForwardKinematics, KinematicsError, forward_kinematics


@pytest.fixture
def chain(aloha):
    return forward_kinematics(aloha)['left']


def test_at_zero_the_end_effector_stands_where_the_offsets_add_up_to(chain):
    pose = chain.base_from_ee(np.zeros(6))
    np.testing.assert_allclose(pose[:3, :3], np.eye(3), atol=1e-12)
    np.testing.assert_allclose(pose[:3, 3], [0.05955 + 0.2 + 0.1 + 0.069744 + 0.1072, 0, 0.079 + 0.04805 + 0.3])


def test_the_first_joint_turns_everything_about_the_base(chain, rng):
    joints = rng.uniform(-1, 1, 6)
    turned = joints + np.eye(6)[0] * 0.7
    c, s = np.cos(0.7), np.sin(0.7)
    about_z = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    np.testing.assert_allclose(chain.base_from_ee(turned), about_z @ chain.base_from_ee(joints), atol=1e-12)


def test_many_positions_at_once_give_what_each_gives_alone(chain, rng):
    joints = rng.uniform(-1, 1, (3, 2, 6))
    together = chain.base_from_ee(joints)
    for place in np.ndindex(3, 2):
        np.testing.assert_allclose(together[place], chain.base_from_ee(joints[place]), atol=1e-12)


def test_a_wrong_number_of_joints_is_refused(chain):
    with pytest.raises(ValueError, match=r'shape \(7,\).*waist'):
        chain.base_from_ee(np.zeros(7))


def test_an_arm_without_a_chain_says_what_to_add(change):
    contract = change({'arms.left.chain': None})
    with pytest.raises(KinematicsError, match=r'arms\.left\.chain is not in the contract'):
        ForwardKinematics('left', contract.arms['left'])


def test_a_chain_needs_a_link_per_joint_and_unit_axes(change, aloha):
    links = [{'place': {'translation': [0, 0, 0.1]}, 'axis': [0, 0, 1]}]
    with pytest.raises(ContractError, match=r'chain\.links has 1 entries, joints has 6'):
        change({'arms.left.chain': {'links': links, 'ee': {'translation': [0, 0, 0]}}})
    with pytest.raises(ContractError, match='expected a unit vector'):
        change({'arms.left.chain': {'links': [{**links[0], 'axis': [0, 0, 2]}] * 6, 'ee': {'translation': [0, 0, 0]}}})
