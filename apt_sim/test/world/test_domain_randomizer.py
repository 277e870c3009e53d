"""Domain randomisation is determined by the seed, in one compiled model."""

import numpy as np
import pytest

from apt_policy.core.projection import project
from apt_sim.world.cameras import CameraRig, intrinsics, world_from_camera
from apt_sim.world.objects import ALL_OBJECTS, OBJECT_COLOURS, TRAY_COLOURS, Shape, UnknownObjectError, object_spec
from apt_sim.world.physics import Simulation
from apt_sim.world.scene import RandomizationConfig, SceneConfig

POOL = {'objects': ALL_OBJECTS, 'objects_on_table': 5, 'trays': tuple(TRAY_COLOURS), 'trays_on_table': 2}


@pytest.fixture(scope='module')
def pool(contract):
    settings = SceneConfig(**POOL,
                           variation=RandomizationConfig(tint=0.1, brightness=0.2, light_shift=0.3, camera_shift=0.02,
                                                         camera_turn=0.02, fovy_deg=2.0))
    simulation = Simulation(contract, settings)
    with CameraRig(simulation) as rig:
        yield simulation, rig


def test_names_say_colour_and_shape():
    assert [object_spec(name).name for name in ALL_OBJECTS] == list(ALL_OBJECTS) and len(set(ALL_OBJECTS)) == 18
    for wrong in ('red', 'pink cube', 'red ball', ''):
        with pytest.raises(UnknownObjectError, match='expected a colour and a shape: one of red, '):
            object_spec(wrong)


def test_each_episode_has_some_of_the_pool_and_in_the_end_all(pool):
    simulation, _ = pool
    objects, trays = set(), set()
    for seed in range(40):
        simulation.reset(seed)
        assert len(set(simulation.scene_objects.objects)) == 5 and len(set(simulation.scene_objects.trays)) == 2
        objects |= set(simulation.scene_objects.objects)
        trays |= set(simulation.scene_objects.trays)
    assert objects == set(ALL_OBJECTS) and trays == set(TRAY_COLOURS)


def test_the_appearance_is_determined_by_the_seed(pool):
    simulation, rig = pool
    simulation.reset(3)
    first = rig.render('cam_high')
    simulation.reset(4)
    other = rig.render('cam_high')
    simulation.reset(3)
    again = rig.render('cam_high')
    np.testing.assert_array_equal(first.rgb, again.rgb)
    np.testing.assert_array_equal(first.world_from_camera, again.world_from_camera)
    assert (first.rgb != other.rgb).any() and (first.world_from_camera != other.world_from_camera).any()


def test_a_jittered_camera_is_where_it_says(pool):
    """Bars and cubes show their colour where their pose is projected to; cups have a hollow there."""
    simulation, rig = pool
    wrong, seen = [], 0
    for seed in range(10):
        simulation.reset(seed)
        rgb = rig.render('cam_high').rgb
        matrix, pose = intrinsics(simulation, 'cam_high'), world_from_camera(simulation, 'cam_high')
        for name in simulation.scene_objects.objects:
            if object_spec(name).shape is Shape.CUP:
                continue
            centre = simulation.world_from_object(name)[None, :3, 3]
            column, row = np.floor(project(centre, matrix, pose)[0]).astype(int)
            shown, true = rgb[row, column].astype(float), np.array(OBJECT_COLOURS[object_spec(name).colour])
            seen += 1
            if np.abs(shown / max(shown.max(), 1.0) - true / true.max()).max() > 0.35:
                wrong.append((seed, name))
    assert seen >= 20 and len(wrong) <= 1, wrong


def test_without_randomisation_cameras_are_the_contracts(contract):
    simulation = Simulation(contract, SceneConfig(**POOL))
    for seed in (1, 2):
        simulation.reset(seed)
        np.testing.assert_allclose(world_from_camera(simulation, 'cam_high'),
                                   contract.cameras['cam_high'].world_from_camera.matrix, atol=1e-6)


def test_a_hidden_shape_touches_nothing(contract):
    simulation = Simulation(contract, SceneConfig(**POOL))
    for seed in range(5):
        simulation.reset(seed)
        before = {name: simulation.world_from_object(name) for name in simulation.scene_objects.objects}
        touching = set()
        for _ in range(50):
            simulation.step(5)
            touching |= simulation.touching()
        for name, pose in before.items():
            np.testing.assert_allclose(simulation.world_from_object(name)[:3, 3], pose[:3, 3], atol=1.5e-3)
            touched = {other for pair in touching if name in pair for other in pair}
            assert name in touched <= {name, 'table', 'world'}
