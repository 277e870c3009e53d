"""Scene of the robot in the contract."""

import dataclasses
import sys

import mujoco
import numpy as np
import pytest

from apt_control.kinematics import arm_kinematics
from apt_policy.core.geometry import invert_pose, make_pose
from apt_sim.world import robot_assets
from apt_sim.world.arms import SceneError, asset_name
from apt_sim.world.cameras import world_from_camera
from apt_sim.world.layout import CLEARANCE, LayoutError, sample_layout
from apt_sim.world.objects import OBJECT_SIDE, Shape
from apt_sim.world.scene import SceneConfig, build_model

LENGTHS = [OBJECT_SIDE] * 4 + [Shape.BAR.length] * 2


def test_arms_stand_where_the_contract_says(simulation, contract):
    for name, arm in contract.arms.items():
        base = simulation.data.body(asset_name(name))
        placed = make_pose(base.xmat.reshape(3, 3), base.xpos)
        np.testing.assert_allclose(placed, arm.world_from_base.matrix, atol=1e-6)


def test_the_contract_agrees_with_the_robot_description_that_gym_aloha_ships(contract):
    model = mujoco.MjModel.from_xml_path(str(robot_assets.bimanual_viperx()))
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    for name, arm in contract.arms.items():
        body = data.body(f'vx300s_{name}')
        np.testing.assert_allclose(arm.world_from_base.matrix[:3, 3], body.xpos, atol=1e-6)
        # The description rounds pi to 3.1416.
        np.testing.assert_allclose(arm.world_from_base.matrix[:3, :3], body.xmat.reshape(3, 3), atol=1e-5)
        ranges = [model.joint(f'vx300s_{name}/{joint}').range for joint in arm.joints]
        np.testing.assert_allclose(np.transpose([arm.joint_lower, arm.joint_upper]), ranges, atol=1e-5)


def test_fixed_cameras_stand_where_the_contract_says(simulation, contract):
    for name, camera in contract.cameras.items():
        if camera.world_from_camera is not None:
            np.testing.assert_allclose(world_from_camera(simulation, name), camera.world_from_camera.matrix,
                                       atol=1e-6)


def test_kinematics_of_scene_and_ik_model_agree_at_random_joints(simulation, contract):
    random = np.random.default_rng(0)
    kinematics = arm_kinematics(contract)
    for _ in range(50):
        for name, arm in contract.arms.items():
            joints = random.uniform(arm.joint_lower, arm.joint_upper)
            for joint, position in zip(arm.joints, joints, strict=True):
                simulation.data.joint(f'vx300s_{name}/{joint}').qpos = position
            mujoco.mj_kinematics(simulation.model, simulation.data)
            base_from_ee = invert_pose(arm.world_from_base.matrix) @ simulation.world_from_ee(name)
            np.testing.assert_allclose(kinematics[name].base_from_ee(joints), base_from_ee, atol=1e-6)


def test_the_start_pose_lies_in_the_workspace_and_within_joint_limits(simulation, contract):
    for name, arm in contract.arms.items():
        position = simulation.world_from_ee(name)[:3, 3]
        assert np.all(arm.workspace.lower < position) and np.all(position < arm.workspace.upper)
        assert np.all(arm.joint_lower < np.array(arm.start)) and np.all(np.array(arm.start) < arm.joint_upper)


def test_a_robot_with_other_arms_is_refused_by_name(contract):
    other = dataclasses.replace(contract, arms={**contract.arms, 'third': contract.arms['left']})
    with pytest.raises(SceneError, match='third; expected those of the simulated ALOHA: left, right'):
        build_model(other, SceneConfig())


def test_an_unknown_object_is_rejected_with_the_known_ones():
    with pytest.raises(SceneError, match='objects: unknown pink cube; expected some of red cube'):
        SceneConfig(objects=('red cube', 'pink cube'))
    with pytest.raises(SceneError, match='trays: unknown green; expected some of white'):
        SceneConfig(trays=('white', 'green'))
    with pytest.raises(SceneError, match='objects_on_table is 7; expected 0 to 6'):
        SceneConfig(objects_on_table=7)


def test_missing_meshes_are_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, 'gym_aloha', None)
    with pytest.raises(robot_assets.MissingAssetsError, match='pip install --no-deps gym-aloha'):
        robot_assets.bimanual_viperx()


@pytest.mark.parametrize('seed', range(20))
def test_every_object_can_be_grasped_between_its_neighbours(seed):
    layout = sample_layout(lengths=LENGTHS, trays=2, random=np.random.default_rng(seed))
    gaps = np.linalg.norm(layout.objects[:, None, :2] - layout.objects[None, :, :2], axis=-1)
    longer = (np.array(LENGTHS) - OBJECT_SIDE) / 2
    gaps -= longer[:, None] + longer[None]
    assert gaps[~np.eye(6, dtype=bool)].min() >= CLEARANCE
    assert np.all(np.abs(layout.objects[:, 0]) <= 0.33) and np.all(layout.objects[:, 1] >= 0.30)
    assert np.all(layout.objects[:, 1] <= 0.65)
    assert np.abs(np.diff(layout.trays[:, 0])).min() >= 0.15


def test_layouts_follow_from_the_seed():
    first, again, other = (sample_layout(lengths=LENGTHS, trays=2, random=np.random.default_rng(s)) for s in (3, 3, 4))
    assert np.array_equal(first.objects, again.objects) and np.array_equal(first.trays, again.trays)
    assert not np.allclose(first.objects, other.objects)


def test_a_table_too_small_is_said_so():
    with pytest.raises(LayoutError, match='of 200 objects'):
        sample_layout(lengths=[OBJECT_SIDE] * 200, trays=0, random=np.random.default_rng(0))
    with pytest.raises(LayoutError, match='4 trays'):
        sample_layout(lengths=[], trays=4, random=np.random.default_rng(0))
