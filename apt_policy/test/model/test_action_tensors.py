import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from apt_policy.core.actions import decode_actions as core_decode
from apt_policy.core.actions import encode_actions as core_encode
from apt_policy.core.actions import unpack_state
from apt_policy.model.actions import decode_actions, encode_states
from apt_policy.model.batch import RobotState


@pytest.fixture
def robot(random_poses, random_states):
    return RobotState(world_from_camera=random_poses(2, 3, seed=1), world_from_ee=random_poses(2, 2, seed=2),
                      world_from_reference=random_poses(2, 2, seed=3), history=random_states(2, 1, 2, seed=4),
                      valid_arms=torch.ones(2, 2, dtype=torch.bool))


def test_decoding_undoes_encoding(robot, random_states):
    states = random_states(2, 5, 2, seed=5)
    assert torch.allclose(decode_actions(encode_states(states, robot), robot), states, atol=1e-5)


def test_encoding_undoes_decoding_and_the_gripper_is_not_clamped(robot, random_states):
    actions = encode_states(random_states(2, 5, 2, seed=6), robot)
    actions[..., 9] = 1.8
    assert torch.allclose(encode_states(decode_actions(actions, robot), robot), actions, atol=1e-5)


def test_the_present_is_the_identity(robot):
    now = torch.cat([robot.world_from_ee.flatten(2), torch.full((2, 2, 1), 0.25)], dim=-1)[:, None]
    expected = torch.tensor([0.0, 0, 0, 1, 0, 0, 0, 1, 0, -0.5])
    assert torch.allclose(encode_states(now, robot), expected, atol=1e-6)


def test_one_action_by_hand(robot, random_states):
    state = random_states(2, 1, 2, seed=7)
    future = state[1, 0, 1, :16].view(4, 4).double().numpy()
    now, camera = robot.world_from_ee[1, 1].double().numpy(), robot.world_from_reference[1, 1].double().numpy()
    moved = np.linalg.inv(now) @ future
    turn = (np.linalg.inv(camera) @ now)[:3, :3]
    by_hand = [*(turn @ moved[:3, 3]), *(turn @ moved[:3, :3] @ turn.T)[:2].ravel(),
               2 * float(state[1, 0, 1, 16]) - 1]
    assert np.allclose(encode_states(state, robot)[1, 1, 0], by_hand, atol=1e-5)


def test_rows_that_are_not_orthogonal_are_decoded_from_the_first(robot):
    actions = torch.zeros(2, 2, 1, 10)
    actions[..., 3:9] = torch.tensor([2.0, 0, 0, 5, 3, 0])
    poses = decode_actions(actions, robot)[..., :16].unflatten(-1, (4, 4))
    assert torch.allclose(poses[:, 0], robot.world_from_ee, atol=1e-5)


def test_the_torch_and_the_numpy_action_space_are_the_same(robot, random_states):
    states = random_states(2, 4, 2, seed=8)
    encoded = encode_states(states, robot)
    for sample, arm in np.ndindex(2, 2):
        poses, gripper = unpack_state(states[sample, :, arm].numpy())
        frame = {'world_from_ee_now': robot.world_from_ee[sample, arm].numpy(),
                 'world_from_camera': robot.world_from_reference[sample, arm].numpy()}
        assert np.allclose(core_encode(poses, gripper, **frame), encoded[sample, arm], atol=1e-5)
        back, opening = core_decode(encoded[sample, arm].numpy(), **frame)
        mine = decode_actions(encoded, robot)[sample, :, arm].numpy()
        assert np.allclose(back.reshape(-1, 16), mine[:, :16], atol=1e-5)
        assert np.allclose(opening, mine[:, 16], atol=1e-6)


def test_poses_stay_float32_under_autocast(robot, random_states):
    states = random_states(2, 3, 2, seed=9)
    exact = encode_states(states, robot)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(encode_states(states, robot), exact)
        assert torch.equal(decode_actions(exact, robot), decode_actions(exact.clone(), robot))


def test_decoded_rotations_are_rotations(robot):
    actions = torch.randn(2, 2, 6, 10, generator=torch.Generator().manual_seed(0))
    turns = decode_actions(actions, robot)[..., :16].unflatten(-1, (4, 4))[..., :3, :3].reshape(-1, 3, 3)
    again = Rotation.from_matrix(turns.numpy()).as_matrix()
    assert np.allclose(again, turns, atol=1e-5)
