import pytest
import torch

from apt_policy.model.frames import (
    centre,
    first_valid_reference,
    invert_pose,
    move_states,
    turn_randomly,
)

ARMS = torch.ones(1, 2, dtype=torch.bool)


def test_an_inverted_pose_undoes_the_pose(random_poses):
    poses = random_poses(3, 2)
    assert torch.allclose(invert_pose(poses) @ poses, torch.eye(4).expand(3, 2, 4, 4), atol=1e-6)


def test_the_centre_is_the_mean_of_valid_cameras_only(random_poses):
    cameras = random_poses(1, 3)
    cameras[0, 1] = torch.nan
    frame = centre(cameras, torch.tensor([[True, False, True]]))
    assert torch.allclose(frame[0, :3, 3], cameras[0, [0, 2], :3, 3].mean(0))
    assert torch.equal(frame[0, :3, :3], torch.eye(3))


def test_without_cameras_the_frame_stays(random_poses):
    frame = centre(random_poses(1, 2), torch.zeros(1, 2, dtype=torch.bool))
    assert torch.equal(frame[0], torch.eye(4))


def test_a_random_turn_is_a_rotation_about_the_same_origin(random_poses):
    frames = random_poses(50)
    turned = turn_randomly(frames, torch.Generator().manual_seed(0))
    rotation = turned[:, :3, :3]
    assert torch.allclose(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(50, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(50), atol=1e-5)
    assert torch.equal(turned[:, :3, 3], frames[:, :3, 3])
    # Uniform over rotations: its mean over many draws is zero.
    many = turn_randomly(frames[:1].expand(4000, 4, 4), torch.Generator().manual_seed(1))
    assert many[:, :3, :3].mean(0).abs().max() < 0.05


def test_states_move_there_and_back(random_poses, random_states):
    b_from_a, states = random_poses(2, seed=1), random_states(2, 3, 2, seed=2)
    moved = move_states(b_from_a, states)
    assert torch.equal(moved[..., 16], states[..., 16])
    assert torch.allclose(move_states(invert_pose(b_from_a), moved), states, atol=1e-5)


def test_inference_takes_the_first_valid_candidate(random_poses):
    cameras = random_poses(2, 3)
    valid = torch.tensor([[True, True, True], [True, True, False]])
    chosen = first_valid_reference(cameras, valid, torch.tensor([[2, 0], [1, -1]]), ARMS.expand(2, 2))
    assert torch.equal(chosen[0], cameras[0, [2, 1]])
    assert torch.equal(chosen[1], cameras[1, [0, 1]])


def test_an_arm_without_a_valid_candidate_is_named_unless_it_is_absent(random_poses):
    cameras, candidates = random_poses(1, 2), torch.tensor([[0], [1]])
    valid = torch.tensor([[True, False]])
    with pytest.raises(ValueError, match=r'arm 1: none of its reference cameras \[1\]'):
        first_valid_reference(cameras, valid, candidates, ARMS)
    chosen = first_valid_reference(cameras, valid, candidates, torch.tensor([[True, False]]))
    assert torch.equal(chosen[0, 0], cameras[0, 0])
