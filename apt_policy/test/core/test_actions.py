"""The action space against its definition, written out with plain matrix products."""

from pathlib import Path

import numpy as np
import pytest

from apt_policy.core.actions import decode_actions, encode_actions, pack_state, unpack_state


def test_encoding_follows_the_definition(random_poses):
    now, camera, future = random_poses(), random_poses(), random_poses()
    action = encode_actions(future, 0.3, world_from_ee_now=now, world_from_camera=camera)
    step = np.linalg.inv(now) @ future
    turn = (np.linalg.inv(camera) @ now)[:3, :3]
    rotation = turn @ step[:3, :3] @ turn.T
    expected = [*(turn @ step[:3, 3]), *rotation[0], *rotation[1], 2 * 0.3 - 1]
    np.testing.assert_allclose(action, expected, atol=1e-14)


@pytest.mark.parametrize('stage', [0, 1])
def test_encoding_agrees_with_the_golden_vectors(stage):
    golden = np.load(Path(__file__).parents[1] / 'golden' / f'expert_stage{stage}.npz')
    poses, gripper = unpack_state(golden['in/future_ee_states'])
    actions = encode_actions(poses, gripper, world_from_ee_now=golden['in/current_ee_pose'][:, None],
                             world_from_camera=golden['in/action_ref_pose'][:, None])
    expected = golden['out/encoded_future_action'].swapaxes(1, 2)
    valid = np.broadcast_to(golden['in/valid_ee_mask'].astype(bool)[:, None], expected.shape[:3])
    np.testing.assert_allclose(actions[valid], expected[valid], atol=2e-6)


def test_decoding_inverts_encoding_over_leading_axes(random_poses, rng):
    now, camera, future = random_poses(2, 1), random_poses(2, 1), random_poses(2, 32)
    gripper = rng.uniform(0, 1, (2, 32))
    actions = encode_actions(future, gripper, world_from_ee_now=now, world_from_camera=camera)
    assert actions.shape == (2, 32, 10)
    poses, opening = decode_actions(actions, world_from_ee_now=now, world_from_camera=camera)
    np.testing.assert_allclose(poses, future, atol=1e-12)
    np.testing.assert_allclose(opening, gripper, atol=1e-14)


def test_staying_put_encodes_as_the_identity(random_poses):
    now = random_poses()
    action = encode_actions(now, 1.0, world_from_ee_now=now, world_from_camera=random_poses())
    np.testing.assert_allclose(action, [0, 0, 0, 1, 0, 0, 0, 1, 0, 1], atol=1e-14)


def test_moving_along_the_cameras_axis_is_that_axis_whatever_the_gripper_points_at(random_poses):
    now, camera = random_poses(), random_poses()
    future = now.copy()
    future[:3, 3] += 0.05 * camera[:3, 2]
    action = encode_actions(future, 0.5, world_from_ee_now=now, world_from_camera=camera)
    np.testing.assert_allclose(action[:3], [0, 0, 0.05], atol=1e-14)


def test_moving_the_whole_world_changes_no_action(random_poses):
    now, camera, future, moved = (random_poses() for _ in range(4))
    here = encode_actions(future, 0.5, world_from_ee_now=now, world_from_camera=camera)
    there = encode_actions(moved @ future, 0.5, world_from_ee_now=moved @ now,
                           world_from_camera=moved @ camera)
    np.testing.assert_allclose(there, here, atol=1e-12)


def test_a_prediction_that_is_no_rotation_decodes_to_one_and_its_gripper_is_not_clamped(random_poses, rng):
    actions = rng.normal(size=(20, 10))
    actions[:, 9] = 1.6
    poses, opening = decode_actions(actions, world_from_ee_now=random_poses(),
                                    world_from_camera=random_poses())
    rotation = poses[:, :3, :3]
    np.testing.assert_allclose(rotation @ rotation.swapaxes(1, 2), np.tile(np.eye(3), (20, 1, 1)), atol=1e-12)
    assert opening == pytest.approx(1.3)


def test_state_vectors_hold_the_row_major_pose_then_the_opening(random_poses, rng):
    poses, gripper = random_poses(4, 2), rng.uniform(0, 1, (4, 2))
    state = pack_state(poses, gripper)
    assert state.shape == (4, 2, 17)
    np.testing.assert_array_equal(state[1, 1, 4:8], poses[1, 1, 1])
    back, opening = unpack_state(state)
    np.testing.assert_array_equal(back, poses)
    np.testing.assert_array_equal(opening, gripper)
