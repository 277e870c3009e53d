"""Rigid transforms against scipy, finite differences and closed forms."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from apt_policy.core import geometry


def test_pose_and_quaternion_are_inverses_over_leading_axes(random_poses):
    poses = random_poses(3, 5)
    translation, quaternion = geometry.pose_to_quaternion(poses)
    assert quaternion.shape == (3, 5, 4)
    assert (quaternion[..., 3] >= 0).all()
    np.testing.assert_allclose(geometry.pose_from_quaternion(translation, quaternion), poses, atol=1e-14)


def test_mujocos_quaternions_are_read_and_written_with_the_real_part_first(random_poses):
    rotations = random_poses(3, 5)[..., :3, :3]
    quaternions = geometry.rotation_to_wxyz(rotations)
    assert quaternions.shape == (3, 5, 4)
    np.testing.assert_allclose(geometry.rotation_from_wxyz(quaternions), rotations, atol=1e-14)
    quarter = geometry.rotation_from_wxyz([np.cos(np.pi / 4), 0, 0, np.sin(np.pi / 4)])
    np.testing.assert_allclose(quarter, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-15)


def test_a_rotation_vector_turns_about_itself_by_its_length():
    turns = geometry.rotation_from_vector([[[0, 0, np.pi / 2], [0.3, 0.4, 0]]])
    np.testing.assert_allclose(turns[0, 0], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(turns[0, 1] @ [0.3, 0.4, 0], [0.3, 0.4, 0], atol=1e-12)
    assert np.trace(turns[0, 1]) == pytest.approx(1 + 2 * np.cos(0.5))


def test_quaternion_order_is_x_y_z_w():
    pose = geometry.pose_from_quaternion([1, 2, 3], [0, 0, np.sin(np.pi / 4), np.cos(np.pi / 4)])
    expected = [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]
    np.testing.assert_allclose(pose, expected, atol=1e-15)


def test_rotation_and_6d_are_inverses_over_leading_axes(random_poses):
    rotation = random_poses(4, 2)[..., :3, :3]
    six = geometry.rotation_to_6d(rotation)
    np.testing.assert_array_equal(six[..., 3:], rotation[..., 1, :])
    np.testing.assert_allclose(geometry.rotation_from_6d(six), rotation, atol=1e-14)


def test_6d_decoding_keeps_the_direction_of_the_first_row_and_yields_a_rotation(rng):
    six = rng.normal(size=(50, 6))
    rotation = geometry.rotation_from_6d(six)
    first = six[:, :3] / np.linalg.norm(six[:, :3], axis=1, keepdims=True)
    np.testing.assert_allclose(rotation[:, 0], first, atol=1e-14)
    np.testing.assert_allclose(rotation @ rotation.swapaxes(1, 2), np.tile(np.eye(3), (50, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0, atol=1e-12)
    # The second row stays in the plane that the two given rows span.
    np.testing.assert_allclose(np.einsum('ni,ni->n', rotation[:, 2], six[:, 3:]), 0.0, atol=1e-12)


def test_inverting_a_pose_equals_the_matrix_inverse(random_poses):
    poses = random_poses(2, 7)
    np.testing.assert_allclose(geometry.invert_pose(poses), np.linalg.inv(poses), atol=1e-12)
    np.testing.assert_allclose(geometry.invert_pose(geometry.invert_pose(poses)), poses, atol=1e-14)


@pytest.mark.parametrize('angle', [0.0, 1e-9, 1e-4, 1.0, 3.0, np.pi])
def test_angle_between_is_the_angle_turned_by(angle, random_poses):
    start = random_poses()[:3, :3]
    end = start @ Rotation.from_rotvec([0, angle, 0]).as_matrix()
    assert geometry.angle_between(start, end) == pytest.approx(angle, abs=1e-8 * (angle > 3), rel=1e-6)


def test_interpolation_agrees_with_scipy_slerp_and_straight_lines(random_poses):
    start, end = random_poses(), random_poses()
    share = np.linspace(0, 1, 11)
    slerp = Slerp([0, 1], Rotation.from_matrix(np.stack([start[:3, :3], end[:3, :3]])))
    poses = geometry.interpolate_pose(start, end, share)
    np.testing.assert_allclose(poses[:, :3, :3], slerp(share).as_matrix(), atol=1e-12)
    line = start[:3, 3] + share[:, None] * (end[:3, 3] - start[:3, 3])
    np.testing.assert_allclose(poses[:, :3, 3], line, atol=1e-14)


def test_interpolation_broadcasts_poses_against_fractions(random_poses):
    start, end = random_poses(6), random_poses(6)
    share = np.linspace(0, 1, 6)
    together = geometry.interpolate_pose(start, end, share)
    for i in range(6):
        np.testing.assert_allclose(together[i], geometry.interpolate_pose(start[i], end[i], share[i]),
                                   atol=1e-14)


@pytest.mark.parametrize('break_it', [
    lambda p: p.__setitem__((0, 3), np.nan), lambda p: p.__setitem__((0, slice(0, 3)), 0.0),
    lambda p: p.__setitem__((slice(0, 3), 0), -p[:3, 0]), lambda p: p.__setitem__((3, 0), 0.5)])
def test_what_is_not_a_rigid_transform_is_recognised(break_it, random_poses):
    pose = random_poses()
    assert geometry.is_rigid(pose)
    break_it(pose)
    assert not geometry.is_rigid(pose)
