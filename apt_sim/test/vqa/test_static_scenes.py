"""Annotations of static scenes match the simulation."""

import colorsys

import numpy as np
import pytest

from apt_policy.core.geometry import make_pose
from apt_policy.core.projection import project
from apt_sim.tasks.grasp import EE_FROM_TOOL_CENTRE
from apt_sim.vqa.annotations import (
    CELL_SIZE,
    GRID_ORIGIN,
    GRID_SHAPE,
    IMAGE_GRID,
    CameraView,
    image_cell,
    image_position,
    table_cell,
)
from apt_sim.vqa.static_scene import render_and_annotate
from apt_sim.world.arms import asset_name
from apt_sim.world.cameras import intrinsics
from apt_sim.world.objects import OBJECT_COLOURS, OBJECT_SIDE, object_spec

SCENES = 40


@pytest.fixture(scope='module')
def seen(studio):
    """Return ground truth, images, annotations and joint positions of each scene."""
    found = []
    for seed in range(SCENES):
        scene = studio.sampler.sample(seed)
        fingers = {arm: [studio.simulation.data.body(f'{asset_name(arm)}/{side}_finger_link').xpos.copy()
                         for side in ('left', 'right')] for arm in scene.arms}
        found.append((scene, *render_and_annotate(studio.simulation, studio.rig, scene), fingers))
    return found


def tool_of(world_from_ee):
    return (world_from_ee @ [*EE_FROM_TOOL_CENTRE, 1.0])[:3]


def test_places_count_two_centimetres_each_from_the_left_front_corner():
    middles = {(x, y): np.array([GRID_ORIGIN[0] + (x + 0.5) * CELL_SIZE, GRID_ORIGIN[1] + (y + 0.5) * CELL_SIZE, 0.02])
               for x in range(GRID_SHAPE[0]) for y in range(GRID_SHAPE[1])}
    assert all(table_cell(point) == where for where, point in middles.items())
    assert table_cell(np.array([-2.0, 5.0, 0.0])) == (0, GRID_SHAPE[1] - 1)


def test_every_object_and_tray_has_its_cell(seen):
    for scene, _, annotations, _ in seen:
        for told, true in ((annotations.objects, scene.objects), (annotations.trays, scene.trays)):
            assert set(told) == set(true)
            for name, (x, y) in told.items():
                middle = np.array([GRID_ORIGIN[0] + (x + 0.5) * CELL_SIZE, GRID_ORIGIN[1] + (y + 0.5) * CELL_SIZE])
                assert np.abs(true[name][:2, 3] - middle).max() <= CELL_SIZE / 2 + 1e-9, name


def test_the_nearer_hand_is_that_of_the_same_half_of_the_table(seen):
    for scene, _, annotations, _ in seen:
        assert annotations.nearer_arm == {name: 'left' if pose[0, 3] < 0 else 'right' for name,
                                          pose in scene.objects.items()}


def test_image_points_agree_with_the_projection(studio):
    studio.simulation.reset(0)
    camera_image = studio.rig.render('cam_high')
    matrix = intrinsics(studio.simulation, 'cam_high')
    picture = CameraView(size=camera_image.rgb.shape[0], intrinsics=matrix,
                         world_from_camera=camera_image.world_from_camera)
    points = np.random.default_rng(0).uniform((-1.5, -1.0, -0.5), (1.5, 2.0, 2.0), (500, 3))
    pixels = project(points, matrix, camera_image.world_from_camera) / picture.size
    inside = 0
    for point, pixel in zip(points, pixels, strict=True):
        found = image_position(point, picture)
        if np.all((pixel >= 0) & (pixel < 1)):
            inside += 1
            np.testing.assert_allclose(found, pixel, atol=1e-9)
            assert image_cell(found) == tuple(np.floor(pixel * IMAGE_GRID).astype(int))
        else:
            assert found is None
    assert 20 < inside < 480


@pytest.mark.parametrize('camera', ['cam_high', 'cam_left_wrist', 'cam_right_wrist'])
def test_the_marked_middle_of_most_objects_shows_their_colour(seen, camera):
    """Only most of them do: an arm or a finger may hide an object, and a cup's centre is dark."""
    hits, shown = 0, 0
    for _, camera_images, annotations, _ in seen:
        rgb = camera_images[camera].rgb
        for name in annotations.image_cells[camera]:
            if 'cup' in name:
                continue
            across, down = (int(share * len(rgb)) for share in annotations.image_points[camera][name][0])
            hue = 360 * colorsys.rgb_to_hsv(*(rgb[down, across] / 255))[0]
            true = 360 * colorsys.rgb_to_hsv(*OBJECT_COLOURS[object_spec(name).colour])[0]
            hits += abs((hue - true + 180) % 360 - 180) < 15
            shown += 1
    assert shown >= 20 and hits / shown > 0.7, f'{hits} of {shown}'


def test_a_place_is_where_the_camera_sees_the_middle(seen):
    shown = 0
    for scene, camera_images, annotations, _ in seen:
        for camera, places in annotations.camera_positions.items():
            world_from_camera = camera_images[camera].world_from_camera
            for name, middle in places.items():
                if name in scene.objects:
                    np.testing.assert_allclose((world_from_camera @ [*middle, 1.0])[:3], scene.objects[name][:3, 3],
                                               atol=1e-9)
                    shown += 1
    assert shown >= 50


def test_the_image_cell_is_that_of_the_annotated_centre(seen):
    for _, _, annotations, _ in seen:
        for camera, pictured in annotations.image_cells.items():
            for name, where in pictured.items():
                assert image_cell(annotations.image_points[camera][name][0]) == where


def test_what_hangs_in_the_air_is_between_two_fingers_and_is_said_to_be_held(seen):
    count = 0
    for scene, _, annotations, fingers in seen:
        assert {name for name,
                pose in scene.objects.items() if pose[2, 3] > OBJECT_SIDE} == set(annotations.held.values())
        for arm, name in annotations.held.items():
            middle, (left, right) = scene.objects[name][:3, 3], fingers[arm]
            across = (right - left) / np.linalg.norm(right - left)
            assert 0.2 < (middle - left) @ across / np.linalg.norm(right - left) < 0.8, name
            assert abs(scene.objects[name][:3, 1] @ across) > 0.98, f'fingers close on the narrow sides of the {name}'
            assert np.linalg.norm(tool_of(scene.arms[arm].world_from_ee) - middle) < OBJECT_SIDE / 2
            count += 1
    assert count >= 5


def test_hands_off_their_start_point_straight_down(studio, seen):
    studio.simulation.reset(0)
    starts = {arm: studio.simulation.world_from_ee(arm) for arm in studio.contract.arms}
    posed = [state.world_from_ee for scene, *_ in seen for arm, state in scene.arms.items()
             if not np.allclose(state.world_from_ee, starts[arm], atol=1e-6)]
    assert len(posed) > SCENES
    assert all(pose[2, 0] < -np.cos(0.06) for pose in posed), 'x of ee_gripper_link is the way it points'


def test_a_static_scene_does_not_depend_on_earlier_ones(studio):
    def picture(seed):
        scene = studio.sampler.sample(seed)
        return studio.simulation.data.qpos.copy(), render_and_annotate(studio.simulation, studio.rig,
                                                                       scene)[0]['cam_high'].rgb

    (joints, shown), _, (again, shown_again) = picture(5), picture(9), picture(5)
    assert np.array_equal(joints, again) and np.array_equal(shown, shown_again)


def test_a_point_behind_the_camera_is_not_in_its_image():
    picture = CameraView(size=100, intrinsics=np.array([[50.0, 0, 50], [0, 50, 50], [0, 0, 1]]),
                         world_from_camera=make_pose(np.eye(3), (0.0, 0.0, 0.0)))
    assert image_position(np.array([0.0, 0.0, 1.0]), picture) == (0.5, 0.5)
    assert image_position(np.array([0.0, 0.0, -1.0]), picture) is None
