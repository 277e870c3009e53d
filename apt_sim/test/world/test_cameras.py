"""Images and calibration agree."""

import colorsys
import dataclasses

import cv2
import numpy as np
import pytest

from apt_policy.core.geometry import make_pose
from apt_policy.core.projection import project
from apt_sim.world import cameras, graphics, scene
from apt_sim.world.cameras import (
    CameraRig,
    calibrated_contract,
    intrinsics,
    is_sky_visible,
    parent_from_camera,
    world_from_camera,
)
from apt_sim.world.objects import OBJECT_COLOURS, OBJECT_SIDE, object_spec
from apt_sim.world.physics import Simulation
from apt_sim.world.robot_assets import coarsen
from apt_sim.world.scene import SceneConfig, hand_from_wrist_camera

FEWEST_PIXELS = 40


def blob_of(rgb, name):
    """Return the mask of the largest patch of a cube's colour."""
    hsv = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hue = 360 * colorsys.rgb_to_hsv(*OBJECT_COLOURS[object_spec(name).colour])[0]
    turn = np.abs((hsv[..., 0] - hue + 180) % 360 - 180)
    alike = ((turn < 9) & (hsv[..., 1] > 0.5) & (hsv[..., 2] > 0.25)).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(alike, connectivity=4)
    if count == 1:
        return np.zeros(labels.shape, bool)
    return labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))


def silhouette_of(simulation, name, camera):
    """Return the mask of a cube in an image from geometry alone; None if it is partly outside."""
    corners = (np.indices((2, 2, 2)).reshape(3, 8).T - 0.5) * OBJECT_SIDE
    cube = simulation.world_from_object(name)
    matrix, pose = intrinsics(simulation, camera), world_from_camera(simulation, camera)
    pixels = project(corners @ cube[:3, :3].T + cube[:3, 3], matrix, pose)
    height, width = simulation.settings.image_height, simulation.settings.image_width
    if not (np.all(pixels > 1) and np.all(pixels < (width - 1, height - 1))):
        return None
    # Sixteen times the resolution, because drawing in whole pixels has an error of half a pixel.
    mask = np.zeros((16 * height, 16 * width), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.round(16 * pixels - 0.5).astype(np.int32)), 255)
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA) / 255


def centroid(weights):
    rows, columns = np.indices(weights.shape) + 0.5
    return np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()


def sightings(simulation, rig, camera):
    """Yield projected centre, blob and silhouette of each cube that a camera sees completely."""
    rgb = rig.render(camera).rgb
    for name in simulation.scene_objects.objects:
        silhouette, blob = silhouette_of(simulation, name, camera), blob_of(rgb, name)
        if silhouette is None or blob.sum() < FEWEST_PIXELS or blob.sum() < 0.97 * silhouette.sum():
            continue
        centre = project(simulation.world_from_object(name)[None, :3, 3], intrinsics(simulation, camera),
                         world_from_camera(simulation, camera))[0]
        yield centre, blob, silhouette


def look_down(simulation, contract):
    """Turn both hands towards the table, so that the wrist cameras see some of it."""
    for name in contract.arms:
        simulation.command_joints(name, np.array([0.0, -0.7, 0.6, 0.0, 0.9, 0.0]))
    simulation.step(1000)


@pytest.mark.parametrize(('camera', 'at_least'), [
    ('cam_high', 12), ('cam_low', 9), ('cam_left_wrist', 3), ('cam_right_wrist', 3)])
def test_projected_cubes_lie_on_their_colours(simulation, contract, rig, camera, at_least):
    seen = 0
    for seed in range(3):
        simulation.reset(seed)
        look_down(simulation, contract)
        for centre, blob, silhouette in sightings(simulation, rig, camera):
            assert np.linalg.norm(centre - centroid(blob)) < 1.5
            assert np.linalg.norm(centroid(silhouette) - centroid(blob)) < 0.5
            assert blob.sum() == pytest.approx(silhouette.sum(), rel=0.1)
            seen += 1
    assert seen >= at_least


def test_an_image_has_its_stamp_and_its_camera_pose(simulation, rig):
    simulation.step(25)
    camera_image = rig.render('cam_left_wrist')
    assert camera_image.stamp_ns == simulation.time_ns
    np.testing.assert_array_equal(camera_image.world_from_camera, world_from_camera(simulation, 'cam_left_wrist'))
    simulation.command_joints('left', np.array([0.5, -0.96, 1.16, 0.0, -0.3, 0.0]))
    simulation.step(500)
    assert np.linalg.norm(world_from_camera(simulation, 'cam_left_wrist') - camera_image.world_from_camera) > 0.1


def test_cameras_that_do_not_vary_stand_where_contract_and_scene_have_them(simulation, contract):
    placed = calibrated_contract(simulation)
    assert list(placed.cameras) == list(contract.cameras)
    for name, camera in contract.cameras.items():
        fixed = camera.world_from_camera
        stands = hand_from_wrist_camera() if fixed is None else fixed.matrix
        np.testing.assert_allclose(parent_from_camera(simulation, name), stands, atol=1e-6)
        if fixed is not None:
            np.testing.assert_allclose(placed.cameras[name].world_from_camera.matrix, stands, atol=1e-6)


def test_images_are_determined_by_the_seed(simulation, rig):
    first = rig.render('cam_high').rgb
    simulation.reset(1)
    other = rig.render('cam_high').rgb
    simulation.reset(0)
    np.testing.assert_array_equal(rig.render('cam_high').rgb, first)
    assert (first != other).any()


def test_an_invisible_sky_is_not_rendered_and_no_image_changes(simulation, contract, rig, monkeypatch):
    random, seen = np.random.default_rng(0), []
    for _ in range(8):
        for name, arm in contract.arms.items():
            simulation.command_joints(name, np.array(arm.start) + random.normal(0.0, 0.5, len(arm.start)))
        simulation.step(200)
        for camera in contract.cameras:
            seen.append(is_sky_visible(simulation, camera, world_from_camera(simulation, camera)))
            picture = rig.render(camera).rgb
            with monkeypatch.context() as always:
                always.setattr(cameras, 'is_sky_visible', lambda *_: True)
                np.testing.assert_array_equal(rig.render(camera).rgb, picture)
    assert 0.2 < np.mean(seen) < 0.8


def test_from_below_the_floor_there_is_nothing_but_sky(simulation):
    down = make_pose(np.diag([1.0, -1.0, -1.0]), (0.0, 0.5, 1.0))
    assert not is_sky_visible(simulation, 'cam_high', down)
    down[2, 3] = -1.0
    assert is_sky_visible(simulation, 'cam_high', down)


@pytest.mark.parametrize('finer', ['squares', 'slices'])
def test_coarse_meshes_hardly_change_a_small_image(contract, monkeypatch, finer):
    def pictures():
        cups = SceneConfig(objects=('red cup', 'blue cup', 'green cup'), image_width=128, image_height=128)
        small = Simulation(contract, cups)
        with CameraRig(small) as rig:
            return np.stack([rig.render(camera).rgb for camera in contract.cameras]).astype(float)

    coarse = pictures()
    monkeypatch.setattr(scene, '_COARSE', dataclasses.replace(scene._COARSE, **{finer: getattr(scene._FINE, finer)}))
    differences = np.abs(pictures() - coarse)
    assert 0.0 < differences.mean() < 0.1
    assert (differences > 8).mean() < 0.002


def test_missing_opengl_names_the_packages_to_install(monkeypatch):
    monkeypatch.setattr(graphics, '_EGL_LIBRARY', 'libEGL_nobody_has_this.so.1')
    with pytest.raises(graphics.GraphicsError, match='apt-get install libegl1 libgl1-mesa-dri'):
        graphics.open_context(64, 64)


def test_coarser_meshes_keep_their_shape_and_orientation():
    steps = np.linspace(0.0, 1.0, 41)
    u, v = np.meshgrid(2 * np.pi * steps, np.pi * steps)
    sphere = np.stack([np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v)], axis=-1).reshape(-1, 3)
    corner = (np.arange(40)[:, None] * 41 + np.arange(40)).ravel()
    faces = np.concatenate([np.stack([corner, corner + 41, corner + 1], 1),
                            np.stack([corner + 1, corner + 41, corner + 42], 1)])

    def volume(vertices, faces):
        a, b, c = (vertices[faces[:, k]] for k in range(3))
        return np.sum(np.cross(a, b) * c) / 6

    vertices, fewer = coarsen(sphere, faces, 0.2)
    assert len(fewer) < len(faces) / 4
    assert volume(sphere, faces) == pytest.approx(4 / 3 * np.pi, rel=0.02)
    assert volume(vertices, fewer) == pytest.approx(4 / 3 * np.pi, rel=0.06)
