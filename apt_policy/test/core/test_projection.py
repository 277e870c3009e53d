"""Projection against OpenCV's, and where there is nothing to see."""

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from apt_policy.core.geometry import invert_pose
from apt_policy.core.projection import camera_from_points, project

INTRINSICS = np.array([[300.0, 0, 160], [0, 280.0, 120], [0, 0, 1]])
IDENTITY = np.eye(4)


def test_pixels_are_those_of_opencv(random_poses, rng):
    for world_from_camera in random_poses(20):
        in_camera = rng.uniform((-1.0, -1.0, 0.2), (1.0, 1.0, 3.0), (30, 3))
        points = in_camera @ world_from_camera[:3, :3].T + world_from_camera[:3, 3]
        camera_from_world = invert_pose(world_from_camera)
        turn = Rotation.from_matrix(camera_from_world[:3, :3]).as_rotvec()
        expected, _ = cv2.projectPoints(points, turn, camera_from_world[:3, 3], INTRINSICS, None)
        np.testing.assert_allclose(project(points, INTRINSICS, world_from_camera), expected[:, 0], atol=1e-6)
        np.testing.assert_allclose(camera_from_points(points, world_from_camera), in_camera, atol=1e-12)


def test_a_point_on_the_axis_is_at_the_principal_point():
    assert project(np.array([[0.0, 0, 2]]), INTRINSICS, IDENTITY)[0] == pytest.approx([160, 120])


def test_projection_follows_the_camera():
    world_from_camera = np.eye(4)
    world_from_camera[:3, 3] = [0.1, 0, 0]
    assert project(np.array([[0.1, 0.2, 1]]), INTRINSICS, world_from_camera)[0] == pytest.approx([160, 176])


def test_points_behind_the_camera_have_no_pixel():
    pixels = project(np.array([[0.0, 0, -1], [0.0, 0, 0], [0.0, 0, 1]]), INTRINSICS, IDENTITY)
    assert np.isnan(pixels[:2]).all() and np.isfinite(pixels[2]).all()


def test_one_point_alone_has_the_pixel_that_it_has_among_others(random_poses, rng):
    points, pose = rng.uniform(-1, 1, (2, 5, 3)), random_poses(1)[0]
    together = project(points, INTRINSICS, pose)
    assert together.shape == (2, 5, 2)
    for place in np.ndindex(2, 5):
        np.testing.assert_allclose(project(points[place], INTRINSICS, pose), together[place])
