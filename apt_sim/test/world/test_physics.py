"""Physics of the simulated robot."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from apt_control.kinematics import arm_kinematics
from apt_policy.core.geometry import invert_pose, make_pose
from apt_policy.core.gripper import opening_from_reading, reading_from_opening
from apt_sim.world.arms import asset_name
from apt_sim.world.motors import FINGER_CLOSED, FINGER_OPEN, FINGER_SQUEEZE
from apt_sim.world.objects import OBJECT_SIDE
from apt_sim.world.physics import Simulation
from apt_sim.world.scene import SceneConfig


def test_the_same_seed_and_commands_give_the_same_episode(contract):
    def episode(simulation):
        simulation.reset(7)
        for tick in range(25):
            simulation.command_joints('left', np.array(contract.arms['left'].start) + 0.01 * tick)
            simulation.command_finger('right', FINGER_SQUEEZE)
            simulation.step(10)
        return simulation.data.qpos.copy()

    used, fresh = Simulation(contract), Simulation(contract, seed=3)
    first = episode(used)
    assert np.array_equal(first, episode(used)), 'an earlier episode left something behind'
    assert np.array_equal(first, episode(fresh))


def test_a_stream_that_breaks_off_ends_at_its_last_command_however_time_is_cut(contract):
    def arm_after(*steps):
        simulation = Simulation(contract)
        for tick in range(25):
            simulation.command_joints('left', np.array(contract.arms['left'].start) + 0.01 * tick)
            simulation.step(simulation.period_steps)
        for count in steps:
            simulation.step(count)
        return simulation.readings('left').position

    at_once, in_periods = arm_after(500), arm_after(*[10] * 50)
    assert np.array_equal(at_once, in_periods)
    np.testing.assert_allclose(at_once, np.array(contract.arms['left'].start) + 0.24, atol=4e-3)


def test_cubes_rest_on_the_table_where_they_were_laid(simulation):
    before = [simulation.world_from_object(name) for name in simulation.scene_objects.objects]
    simulation.step(500)
    for name, laid in zip(simulation.scene_objects.objects, before, strict=True):
        cube = simulation.world_from_object(name)
        assert cube[2, 3] == pytest.approx(OBJECT_SIDE / 2, abs=1e-3)
        np.testing.assert_allclose(cube[:2, 3], laid[:2, 3], atol=1e-3)


def test_objects_at_rest_sleep_until_a_hand_comes(simulation, hand_of, from_above):
    def awake():
        return [name for place, name in enumerate(simulation.scene_objects.objects)
                if simulation.data.body_awake[simulation.model.body(f'object/{place}').id]]

    simulation.reset(0)
    before = {name: simulation.world_from_object(name) for name in simulation.scene_objects.objects}
    assert awake() == list(before), 'things have yet to come to rest'
    simulation.step(250)
    assert not awake()
    cube = min(before, key=lambda name: before[name][0, 3])
    hand, place = hand_of('left'), before[cube][:3, 3]
    yaw = np.arctan2(place[1], place[0])
    # Closed fingers come down beside the cube and sweep it along.
    hand.squeeze(FINGER_SQUEEZE)
    hand.go(from_above(place + (0.0, 0.07, 0.0), yaw, 0.15))
    hand.go(from_above(place + (0.0, 0.07, 0.0), yaw, 0.033))
    assert not awake()
    hand.go(from_above(place, yaw, 0.033))
    moved = simulation.world_from_object(cube)[:3, 3]
    assert np.linalg.norm(moved - place) > 0.02
    hand.go(from_above(place, yaw, 0.25))
    simulation.step(250)
    assert not awake()


def test_the_arms_stay_where_they_are_commanded_to_be(simulation, contract):
    simulation.step(1000)
    for name, arm in contract.arms.items():
        np.testing.assert_allclose(simulation.readings(name).position, arm.start, atol=2e-3)


def test_time_goes_on_through_a_reset(simulation):
    simulation.step(5)
    before_ns = simulation.time_ns
    simulation.reset(1)
    assert simulation.time_ns == before_ns
    simulation.step(5)
    assert simulation.time_ns - before_ns == 5 * simulation.step_ns == 10_000_000


@pytest.mark.parametrize('plane', ['xy', 'yz', 'xz'])
def test_a_hand_follows_a_circle_of_ten_centimetres_within_three_millimetres(
        simulation, hand_of, from_above, plane):
    hand, centre = hand_of('left'), from_above((-0.17, 0.5), 0.0, 0.20)
    hand.go(centre)
    axes = ['xyz'.index(axis) for axis in plane]
    errors = []
    for tick in range(200):
        angle = 2 * np.pi * tick / 200
        target = centre.copy()
        target[axes, 3] += 0.05 * np.array([np.sin(angle), np.cos(angle) - 1.0])
        hand.servo(target)
        errors.append(np.linalg.norm(simulation.world_from_ee('left')[:3, 3] - target[:3, 3]))
    assert max(errors) < 0.003


def test_the_gripper_opens_as_commanded(simulation, contract):
    arm = contract.arms['left']
    for opening in (1.0, 0.5, 0.25, 0.75):
        simulation.command_finger('left', reading_from_opening(opening, arm.gripper_command))
        simulation.step(750)
        measured = opening_from_reading(simulation.readings('left').finger, arm.gripper_state)
        assert measured == pytest.approx(opening, abs=0.05)


def test_closed_fingers_touch_where_the_contract_has_closed(simulation, contract):
    simulation.command_finger('left', FINGER_SQUEEZE)
    simulation.step(1000)
    assert simulation.readings('left').finger == pytest.approx(FINGER_CLOSED, abs=5e-4)
    assert contract.arms['left'].gripper_state.closed == FINGER_CLOSED
    assert contract.arms['left'].gripper_state.open == FINGER_OPEN


@pytest.mark.parametrize('arm', ['left', 'right'])
def test_a_squeezed_cube_is_lifted_and_an_unsqueezed_one_is_not(simulation, hand_of, from_above, arm):
    simulation.reset(0)
    cubes = {name: simulation.world_from_object(name) for name in simulation.scene_objects.objects}
    side = -1.0 if arm == 'left' else 1.0
    name = max(cubes, key=lambda c: side * cubes[c][0, 3])
    cube, hand = cubes[name], hand_of(arm)
    yaw = np.arctan2(cube[1, 0], cube[0, 0]) + (0.0 if arm == 'left' else np.pi)
    low, high = (from_above(cube[:3, 3], yaw, height) for height in (0.033, 0.15))
    hand.go(high)
    hand.go(low)
    hand.go(high)
    assert simulation.world_from_object(name)[2, 3] < 0.03
    hand.go(low)
    hand.squeeze(FINGER_SQUEEZE)
    hand.go(high)
    assert simulation.world_from_object(name)[2, 3] > 0.10
    hand.squeeze(FINGER_OPEN)
    assert simulation.world_from_object(name)[2, 3] < 0.03


def test_objects_that_fall_off_the_table_land_on_the_floor(contract):
    simulation = Simulation(contract, SceneConfig(objects=('red cube',), trays=()))
    simulation.data.joint('object/0').qpos[:3] = (0.0, 0.05, 0.1)
    simulation.step(1500)
    assert -0.75 < simulation.world_from_object('red cube')[2, 3] < -0.65


def test_a_static_state_has_arms_fingers_and_objects_as_set(simulation, contract):
    joints = {name: np.array(arm.start) + 0.1 for name, arm in contract.arms.items()}
    fingers = {'left': 0.03, 'right': 0.05}
    held, *others = simulation.scene_objects.objects
    before = {name: simulation.world_from_object(name) for name in others}
    turn = Rotation.from_euler('zyx', (0.5, -0.3, 1.0)).as_matrix()
    simulation.set_static_state(joints, fingers, {held: make_pose(turn, (-0.1, 0.45, 0.25))})
    for name, arm in contract.arms.items():
        reading = simulation.readings(name)
        np.testing.assert_array_equal(reading.position, joints[name])
        assert reading.finger == fingers[name]
        world_from_ee = arm.world_from_base.matrix @ arm_kinematics(contract)[name].base_from_ee(joints[name])
        np.testing.assert_allclose(simulation.world_from_ee(name), world_from_ee, atol=1e-5)
        left, right = (simulation.data.body(f'{asset_name(name)}/{side}_finger_link').xpos
                       for side in ('left', 'right'))
        np.testing.assert_allclose(*((invert_pose(world_from_ee) @ [*tip, 1.0])[:3] * (1, sign, 1)
                                     for tip, sign in ((left, 1), (right, -1))), atol=1e-5)
    np.testing.assert_allclose(simulation.world_from_object(held), make_pose(turn, (-0.1, 0.45, 0.25)), atol=1e-9)
    assert all(np.array_equal(simulation.world_from_object(name), pose) for name, pose in before.items())


def test_a_static_state_leaves_nothing_to_the_next_episode(simulation, contract):
    simulation.reset(4)
    expected = simulation.data.qpos.copy()
    simulation.set_static_state({'left': np.array(contract.arms['left'].start) + 0.2}, {'left': 0.03},
                                {simulation.scene_objects.objects[0]: make_pose(np.eye(3), (0.0, 0.5, 0.3))})
    assert not np.array_equal(simulation.data.qpos, expected)
    simulation.reset(4)
    assert np.array_equal(simulation.data.qpos, expected)
