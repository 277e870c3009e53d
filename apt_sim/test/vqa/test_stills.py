"""What is said of a still scene is what the simulation has there."""

import colorsys

import numpy as np
import pytest

from apt_policy.core.geometry import make_pose
from apt_policy.core.projection import project
from apt_sim.tasks.grasp import EE_FROM_TOOL_CENTRE
from apt_sim.vqa.sight import ORIGIN, PARTS, STEP, STEPS, Picture, part, place, point_in
from apt_sim.vqa.still import look
from apt_sim.world.cameras import intrinsics
from apt_sim.world.things import OBJECT_COLOURS, OBJECT_SIDE, thing

SCENES = 40


@pytest.fixture(scope='module')
def seen(studio):
    """Of each scene: where everything is, the pictures, what is said, and where hands and fingers are."""
    found = []
    for seed in range(SCENES):
        scene = studio.drawer.draw(seed)
        fingers = {arm: [studio.simulation.world_from_link(arm, f'{side}_finger_link')[:3, 3]
                         for side in ('left', 'right')] for arm in scene.arms}
        found.append((scene, *look(studio.simulation, studio.rig, scene), fingers))
    return found


def tool_of(world_from_ee):
    return (world_from_ee @ [*EE_FROM_TOOL_CENTRE, 1.0])[:3]


def test_places_count_two_centimetres_each_from_the_left_front_corner():
    middles = {(x, y): np.array([ORIGIN[0] + (x + 0.5) * STEP, ORIGIN[1] + (y + 0.5) * STEP, 0.02])
               for x in range(STEPS[0]) for y in range(STEPS[1])}
    assert all(place(point) == where for where, point in middles.items())
    assert place(np.array([-2.0, 5.0, 0.0])) == (0, STEPS[1] - 1)


def test_everything_on_the_table_has_its_place(seen):
    for scene, _, sight, _ in seen:
        for told, true in ((sight.objects, scene.objects), (sight.trays, scene.trays)):
            assert set(told) == set(true)
            for name, (x, y) in told.items():
                middle = np.array([ORIGIN[0] + (x + 0.5) * STEP, ORIGIN[1] + (y + 0.5) * STEP])
                assert np.abs(true[name][:2, 3] - middle).max() <= STEP / 2 + 1e-9, name


def test_the_nearer_hand_is_that_of_the_same_half_of_the_table(seen):
    for scene, _, sight, _ in seen:
        assert sight.nearer == {name: 'left' if pose[0, 3] < 0 else 'right' for name, pose in scene.objects.items()}


def test_points_in_a_picture_are_where_the_projection_has_them(studio):
    studio.simulation.reset(0)
    shot = studio.rig.shoot('cam_high')
    matrix = intrinsics(studio.simulation, 'cam_high')
    picture = Picture(size=shot.rgb.shape[0], intrinsics=matrix, world_from_camera=shot.world_from_camera)
    points = np.random.default_rng(0).uniform((-1.5, -1.0, -0.5), (1.5, 2.0, 2.0), (500, 3))
    pixels = project(points, matrix, shot.world_from_camera) / picture.size
    inside = 0
    for point, pixel in zip(points, pixels, strict=True):
        found = point_in(point, picture)
        if np.all((pixel >= 0) & (pixel < 1)):
            inside += 1
            np.testing.assert_allclose(found, pixel, atol=1e-9)
            assert part(found) == tuple(np.floor(pixel * PARTS).astype(int))
        else:
            assert found is None
    assert 20 < inside < 480


@pytest.mark.parametrize('camera', ['cam_high', 'cam_left_wrist', 'cam_right_wrist'])
def test_the_marked_middle_of_most_objects_shows_their_colour(seen, camera):
    """Not of all: an arm or a finger may stand before one. A cup's middle is dark."""
    hits, shown = 0, 0
    for _, shots, sight, _ in seen:
        rgb = shots[camera].rgb
        for name in sight.pictured[camera]:
            if 'cup' in name:
                continue
            across, down = (int(share * len(rgb)) for share in sight.marked[camera][name][0])
            hue = 360 * colorsys.rgb_to_hsv(*(rgb[down, across] / 255))[0]
            true = 360 * colorsys.rgb_to_hsv(*OBJECT_COLOURS[thing(name).colour])[0]
            hits += abs((hue - true + 180) % 360 - 180) < 15
            shown += 1
    assert shown >= 20 and hits / shown > 0.7, f'{hits} of {shown}'


def test_a_place_is_where_the_camera_sees_the_middle(seen):
    shown = 0
    for scene, shots, sight, _ in seen:
        for camera, places in sight.placed.items():
            world_from_camera = shots[camera].world_from_camera
            for name, middle in places.items():
                if name in scene.objects:
                    np.testing.assert_allclose((world_from_camera @ [*middle, 1.0])[:3], scene.objects[name][:3, 3],
                                               atol=1e-9)
                    shown += 1
    assert shown >= 50


def test_the_part_of_a_picture_is_that_of_the_marked_middle(seen):
    for _, _, sight, _ in seen:
        for camera, pictured in sight.pictured.items():
            for name, where in pictured.items():
                assert part(sight.marked[camera][name][0]) == where


def test_what_hangs_in_the_air_is_between_two_fingers_and_is_said_to_be_held(seen):
    count = 0
    for scene, _, sight, fingers in seen:
        assert {name for name, pose in scene.objects.items() if pose[2, 3] > OBJECT_SIDE} == set(sight.held.values())
        for arm, name in sight.held.items():
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


def test_a_still_is_the_same_whatever_was_drawn_before(studio):
    def picture(seed):
        scene = studio.drawer.draw(seed)
        return studio.simulation.data.qpos.copy(), look(studio.simulation, studio.rig, scene)[0]['cam_high'].rgb

    (joints, shown), _, (again, shown_again) = picture(5), picture(9), picture(5)
    assert np.array_equal(joints, again) and np.array_equal(shown, shown_again)


def test_a_point_behind_the_camera_is_not_in_its_picture():
    picture = Picture(size=100, intrinsics=np.array([[50.0, 0, 50], [0, 50, 50], [0, 0, 1]]),
                      world_from_camera=make_pose(np.eye(3), (0.0, 0.0, 0.0)))
    assert point_in(np.array([0.0, 0.0, 1.0]), picture) == (0.5, 0.5)
    assert point_in(np.array([0.0, 0.0, -1.0]), picture) is None
