"""What the graph says runs, and that everything it names exists."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from apt_bringup import graph
from apt_bringup.arguments import ALOHA, ArgumentError, describe, parse, resolve
from apt_policy.ros.params import parameter_specs, read_value
from apt_policy.ros.policy_params import PolicyParams

PACKAGE = Path(__file__).resolve().parents[2]
LAUNCH = PACKAGE / 'launch' / 'aloha.launch.py'


def aloha(**given):
    return graph.aloha(given, PACKAGE)


def names(described):
    return [node.name for node in described.nodes]


def test_in_simulation_the_policy_starts_last_and_so_stops_first():
    assert names(aloha()) == ['aloha_sim', 'ik_bridge', 'apt_policy']


def test_on_the_robot_the_interbotix_drivers_take_the_place_of_the_simulator():
    described = aloha(robot='aloha', use_cameras='false')
    assert names(described) == ['ik_bridge', 'apt_policy']
    assert [(i.package, i.launch_file) for i in described.includes] == [('aloha', 'aloha_bringup.launch.py')]
    assert described.includes[0].arguments['launch_leaders'] == 'false'
    assert described.includes[0].arguments['use_cameras'] == 'false'


def test_drivers_that_run_already_are_not_started_again():
    assert aloha(robot='aloha', drivers='false').includes == ()


def test_only_the_simulation_follows_the_simulated_clock():
    for robot, simulated in (('sim', True), ('aloha', False)):
        followers = [n for n in aloha(robot=robot).nodes if n.name != 'aloha_sim']
        assert all(node.parameters['use_sim_time'] is simulated for node in followers)


def test_all_nodes_read_one_contract(tmp_path):
    mine = tmp_path / 'robot.yaml'
    mine.touch()
    for given, expected in (({}, 'aloha_sim.yaml'), ({'robot': 'aloha'}, 'aloha.yaml'),
                            ({'contract': str(mine)}, 'robot.yaml')):
        contracts = {node.parameters['contract'] for node in aloha(**given).nodes}
        assert [Path(str(contract)).name for contract in contracts] == [expected]


def test_a_namespace_takes_along_the_names_that_ros_keeps_global():
    for node in aloha(namespace='/cell_1/').nodes:
        assert node.full_name == f'/cell_1/{node.name}'
        assert dict(node.remappings) == {
            '/tf': 'tf', '/tf_static': 'tf_static', '/diagnostics': 'diagnostics', '/clock': 'clock'}
    assert all(not node.remappings for node in aloha().nodes)


def test_arguments_left_empty_leave_the_parameter_file_in_charge(tmp_path):
    policy = aloha().nodes[-1]
    assert not {'checkpoint', 'vlm', 'device', 'default_prompt'} & policy.parameters.keys()
    told = aloha(prompt='tidy up', checkpoint=str(tmp_path)).nodes[-1]
    assert (told.parameters['default_prompt'], told.parameters['checkpoint']) == ('tidy up', str(tmp_path))


@pytest.mark.parametrize('robot', ['sim', 'aloha'])
def test_every_executable_is_an_entry_point_of_its_package(robot):
    for node in aloha(robot=robot).nodes:
        setup = (PACKAGE.parent / node.package / 'setup.py').read_text()
        assert re.search(rf"'{node.executable} = [\w.]+:main'", setup), node.executable


def test_the_shipped_parameter_file_holds_the_defaults_of_the_code():
    shipped = yaml.safe_load((PACKAGE / 'config' / 'policy.yaml').read_text())['/**']['ros__parameters']
    declared = {spec.name: spec for spec in parameter_specs(PolicyParams)}
    assert {name: read_value(declared[name], value) for name, value in shipped.items()} == {
        name: declared[name].default for name in shipped}
    from_arguments = {'contract', 'checkpoint', 'vlm', 'seed', 'default_prompt'}
    assert shipped.keys() == declared.keys() - from_arguments


def test_a_checkpoint_of_the_old_place_is_the_one_at_the_new_place(tmp_path):
    new = tmp_path / 'share' / 'apt_sim' / 'checkpoints' / 'aloha_small'
    new.mkdir(parents=True)
    old = tmp_path / 'share' / 'apt_bringup' / 'checkpoints' / 'aloha_small'
    assert aloha(checkpoint=str(old)).nodes[-1].parameters['checkpoint'] == str(new)


@pytest.mark.parametrize(('given', 'error_text'), [
    ({'promt': 'x'}, "there is no argument 'promt'; did you mean prompt?"),
    ({'zzz': 'x'}, 'expected one of robot, prompt'),
    ({'robot': 'ur5'}, "robot is 'ur5'; expected one of sim, aloha"),
    ({'seed': 'x'}, "seed is 'x'; expected a number"),
    ({'robot': 'aloha', 'namespace': 'cell'}, 'drivers take none'),
    ({'checkpoint': '/nope'}, "checkpoint is '/nope': there is no file or folder /nope"),
    ({'contract': 'nope.yaml'}, f'there is no file or folder {Path("nope.yaml").absolute()}'),
    ({'params_file': '/nope'}, "params_file is '/nope'"),
])
def test_a_wrong_argument_is_named_with_what_is_right(given, error_text):
    with pytest.raises(ArgumentError, match=re.escape(error_text)):
        aloha(**given)


@pytest.mark.parametrize(('words', 'error_text'), [
    (['robot=sim'], 'not of the form name:=value'),
    ([':=sim'], 'not of the form'),
    (['seed:=1', 'seed:=2'], 'given twice'),
])
def test_a_word_that_is_no_argument_is_refused(words, error_text):
    with pytest.raises(ArgumentError, match=error_text):
        parse(words)


def test_a_value_may_contain_the_separator():
    assert parse(['prompt:=a := b']) == {'prompt': 'a := b'}


def test_every_default_is_a_valid_value_and_documented():
    assert resolve({}) == {argument.name: argument.default for argument in ALOHA}
    assert all(f'`{argument.name}`' in describe() for argument in ALOHA)
    assert all(argument.default in argument.choices for argument in ALOHA if argument.choices)


def attributes_read(path):
    return {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize('starter', [LAUNCH, PACKAGE / 'apt_bringup' / 'session.py'], ids=lambda p: p.name)
def test_both_ways_of_starting_use_all_that_the_graph_says(starter):
    """Neither may grow a description of its own: each field of the graph is read by both."""
    said = {field.name for cls in (graph.Graph, graph.NodeSpec, graph.IncludeSpec)
            for field in dataclasses.fields(cls)}
    if starter != LAUNCH:
        said -= {'arguments'}   # the runner starts no launch files of others, and says so
    assert said <= attributes_read(starter)
