"""The contract: what is refused and how it says so, and the two that ship."""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from apt_policy.core.contract import (
    ContractError,
    contract_from_dict,
    contract_to_dict,
    load_contract,
    mismatches,
)


def _flat(value, path=''):
    """Every leaf of nested mappings by its dotted path."""
    if isinstance(value, dict):
        return {key: leaf for name, inner in value.items()
                for key, leaf in _flat(inner, f'{path}.{name}' if path else name).items()}
    return {path: value}


def test_a_contract_survives_the_way_through_json(aloha):
    fields = json.loads(json.dumps(contract_to_dict(aloha)))
    assert contract_from_dict(fields, source='json') == aloha


@pytest.mark.parametrize(('path', 'value', 'message'), [
    ('arms.left.colour', 'red', 'arms.left.colour: Unexpected keyword argument'),
    ('horizon', 0, 'horizon: Input should be greater than 0'),
    ('history', 0, 'history: '), ('step_s', -1.0, 'step_s: '),
    ('cameras.cam_high.transport', 'avi', 'cameras.cam_high.transport: '),
    ('cameras.cam_high.rate_hz', 'fast', r"cameras.cam_high.rate_hz: .*got 'fast'"),
    ('arms.right.joint_lower', [0.0], 'joint_lower has 1 entries, joints has 6'),
    ('arms.left.gripper_state', {'joint': 'x', 'closed': 1.0, 'open': 1.0},
     "'x': closed and open are both 1.0"),
    ('arms.left.workspace', {'lower': [0, 0, 1], 'upper': [1, 1, 0]}, 'box needs lower < upper'),
    ('arms.left.reference_cameras', ['cam_top'], "names 'cam_top'; cameras are cam_high, cam_low"),
    ('cameras.cam_left_wrist.tf_anchor', 'leg',
     "needs world_from_camera, or tf_anchor as one of left, right; tf_anchor is 'leg'"),
    ('cameras.cam_high.ee_from_camera', {'translation': [0, 0, 0]},
     'cameras.cam_high has both world_from_camera and ee_from_camera'),
    ('cameras.cam_high.world_from_camera', {'translation': [0, 0, 0], 'quaternion_xyzw': [0, 0, 1, 1]},
     'quaternion_xyzw has length 1.4142; expected a unit quaternion')])
def test_a_wrong_field_is_refused_by_name(path, value, message, change):
    with pytest.raises(ContractError, match=r'test is not a robot contract:\n(.|\n)*' + message):
        change({path: value})


@pytest.mark.parametrize('path', ['horizon', 'arms.left.base_frame', 'cameras.cam_low.max_age_s', 'safety'])
def test_a_missing_field_is_refused_by_name(path, aloha):
    fields = contract_to_dict(aloha)
    *parents, last = path.split('.')
    place = fields
    for name in parents:
        place = place[name]
    del place[last]
    with pytest.raises(ContractError, match=f'{path}: '):
        contract_from_dict(fields, source='test')


def test_every_wrong_field_is_named_at_once(aloha):
    fields = contract_to_dict(aloha) | {'horizon': -1, 'nonsense': 1}
    del fields['name']
    with pytest.raises(ContractError, match=r'(?s)(?=.*horizon: )(?=.*nonsense: )(?=.*name: )'):
        contract_from_dict(fields, source='test')


def test_a_placement_is_the_matrix_of_its_translation_and_quaternion(aloha):
    placement = aloha.cameras['cam_high'].world_from_camera
    matrix = placement.matrix
    np.testing.assert_allclose(matrix[:3, :3], Rotation.from_quat(placement.quaternion_xyzw).as_matrix())
    np.testing.assert_array_equal(matrix[:, 3], [*placement.translation, 1.0])


def test_a_file_lays_itself_over_the_one_it_extends(config, tmp_path):
    for name in ('aloha.yaml', 'aloha_sim.yaml'):
        (tmp_path / name).write_text((config / name).read_text())
    (tmp_path / 'mine.yaml').write_text(
        'extends: aloha_sim.yaml\nname: mine\ncameras: {cam_low: {rate_hz: 7.0}}\n')
    mine, base = load_contract(tmp_path / 'mine.yaml'), load_contract(tmp_path / 'aloha_sim.yaml')
    got, below = _flat(contract_to_dict(mine)), _flat(contract_to_dict(base))
    changed = {key: got[key] for key in got if got[key] != below[key]}
    assert changed == {'name': 'mine', 'cameras.cam_low.rate_hz': 7.0}


def test_null_removes_what_the_file_below_has(config, tmp_path):
    for name in ('aloha.yaml', 'aloha_sim.yaml'):
        (tmp_path / name).write_text((config / name).read_text())
    (tmp_path / 'mine.yaml').write_text(
        'extends: aloha_sim.yaml\ncameras: {cam_low: null, cam_high: {world_from_camera: null, tf_anchor: left}}\n'
        'arms: {left: {workspace: null}}\n')
    mine = load_contract(tmp_path / 'mine.yaml')
    assert list(mine.cameras) == ['cam_high', 'cam_left_wrist', 'cam_right_wrist']
    assert mine.cameras['cam_high'].world_from_camera is None and mine.arms['left'].workspace is None
    assert mine.arms['right'].workspace is not None


@pytest.mark.parametrize(('files', 'message'), [
    ({}, 'cannot read contract .*a.yaml: No such file'),
    ({'a.yaml': 'extends: b.yaml'}, 'cannot read contract .*b.yaml'),
    ({'a.yaml': 'extends: b.yaml', 'b.yaml': 'extends: a.yaml'}, 'a.yaml extends itself'),
    ({'a.yaml': 'extends: a.yaml'}, 'a.yaml extends itself'),
    ({'a.yaml': 'name: [1'}, 'a.yaml is not YAML'),
    ({'a.yaml': '- 1\n- 2'}, 'a.yaml holds list, expected a mapping'),
    ({'a.yaml': ''}, 'a.yaml holds NoneType, expected a mapping')])
def test_a_file_that_cannot_be_used_says_why(files, message, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ContractError, match=message):
        load_contract(tmp_path / 'a.yaml')


def test_the_contract_of_the_simulation_differs_only_in_what_simulation_changes(config, aloha):
    real = _flat(contract_to_dict(aloha))
    simulated = _flat(contract_to_dict(load_contract(config / 'aloha_sim.yaml')))
    assert real.keys() == simulated.keys()
    changed = {key for key in real if real[key] != simulated[key]}
    grippers = {f'arms.{arm}.{kind}.{end}' for arm in ('left', 'right')
                for kind in ('gripper_state', 'gripper_command') for end in ('closed', 'open')}
    rates = {*(f'cameras.{camera}.rate_hz' for camera in aloha.cameras),
             *(f'arms.{arm}.state_rate_hz' for arm in aloha.arms)}
    assert changed <= {'name', *grippers, *rates}
    assert {'name', *rates} <= changed


def test_weights_trained_in_simulation_fit_the_robot_and_the_other_way_round(config, aloha):
    simulated = load_contract(config / 'aloha_sim.yaml')
    assert mismatches(simulated.policy_facts(), aloha.policy_facts()) == []


def test_the_arms_of_the_shipped_contract_are_mirror_images_that_keep_apart(aloha):
    left, right = aloha.arms['left'], aloha.arms['right']
    assert left.joints == right.joints
    assert left.joint_group_topic == 'follower_left/commands/joint_group'
    assert left.workspace.lower[0] == -right.workspace.upper[0]
    assert left.workspace.upper[0] == -right.workspace.lower[0]
    assert all(low <= value <= high for low, value, high in zip(
        left.joint_lower, left.start, left.joint_upper, strict=True))


@pytest.mark.parametrize(('path', 'value', 'named'), [
    ('step_s', 0.2, 'step_s: checkpoint has 0.1, robot has 0.2'),
    ('horizon', 16, 'horizon: checkpoint has 32, robot has 16'),
    ('arms.left.reference_cameras', ['cam_high'],
     "arms.left.reference_cameras: checkpoint has ['cam_left_wrist', 'cam_high'], robot has ['cam_high']")])
def test_facts_that_weights_depend_on_are_named_where_they_differ(path, value, named, aloha, change):
    assert mismatches(aloha.policy_facts(), change({path: value}).policy_facts()) == [named]


def test_a_fact_that_only_one_side_has_is_a_mismatch(aloha):
    facts = aloha.policy_facts()
    assert mismatches(facts, {**facts, 'arms.third.reference_cameras': ['cam_high']}) == [
        "arms.third.reference_cameras: checkpoint has None, robot has ['cam_high']"]


def test_facts_are_ready_for_json(aloha):
    assert json.loads(json.dumps(aloha.policy_facts())) == aloha.policy_facts()
