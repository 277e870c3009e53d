"""A graph of real nodes: what reaches them, what outlives what, and how ``run`` reports it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rclpy
import yaml
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

from apt_bringup.graph import Graph, IncludeSpec, NodeSpec
from apt_bringup.managed import BringUpError, bring_up
from apt_bringup.session import Session, StartError, ros_arguments

PACKAGE = Path(__file__).resolve().parents[2]
PROMPT = 'put: the "red" cube, # 2 cm'
NODES = ('simulator', 'ik_bridge', 'policy')


def spec(**fields):
    return NodeSpec(package='apt_control', executable='ik_bridge', name='ik_bridge', **fields)


def node_started_with(node, folder):
    """A node as ROS itself reads the arguments."""
    context = Context()
    rclpy.init(args=['program', *ros_arguments(node, folder)], context=context)
    made = rclpy.create_node('unnamed', context=context, automatically_declare_parameters_from_overrides=True)
    try:
        values = {name: made.get_parameter(name).value for name in node.parameters}
        return made.get_fully_qualified_name(), made.resolve_topic_name('/tf'), values
    finally:
        made.destroy_node()
        rclpy.shutdown(context=context)


@pytest.mark.usefixtures('isolated')
def test_name_remapping_and_parameters_reach_the_node_as_they_are(tmp_path):
    parameters = {'default_prompt': PROMPT, 'checkpoint': '007', 'seed': 7, 'gain': 0.5, 'viewer': True}
    node = spec(namespace='cell', remappings=(('/tf', 'tf'),), parameters=parameters)
    assert node_started_with(node, tmp_path) == ('/cell/ik_bridge', '/cell/tf', parameters)


@pytest.mark.usefixtures('isolated')
def test_parameters_of_the_graph_lie_over_the_parameter_file(tmp_path):
    file = tmp_path / 'mine.yaml'
    file.write_text(yaml.safe_dump({'/**': {'ros__parameters': {'seed': 1, 'blend_s': 0.7}}}))
    node = spec(params_file=str(file), parameters={'seed': 2})
    assert node_started_with(node, tmp_path)[2] == {'seed': 2}


def test_a_graph_with_launch_files_of_others_says_what_to_use_instead():
    include = IncludeSpec(package='aloha', launch_file='aloha_bringup.launch.py', arguments={})
    with pytest.raises(StartError, match='ros2 launch'):
        Session(Graph(nodes=(), includes=(include,)))


@pytest.mark.parametrize('missing', [{'package': 'no_such_package'}, {'executable': 'no_such_program'}])
def test_a_node_that_is_not_built_is_named(missing):
    fields = {'package': 'apt_control', 'executable': 'ik_bridge', 'name': 'x', **missing}
    with pytest.raises(StartError, match='make build'):
        Session(Graph(nodes=(NodeSpec(**fields),)))


def run(*words):
    return subprocess.Popen([sys.executable, '-u', '-m', 'apt_bringup.run', *words], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


def test_arguments_are_listed():
    output = run('aloha', '--show-args').communicate(timeout=60)[0]
    assert '`prompt`' in output
    assert '`checkpoint`' in output


def test_a_mistyped_argument_starts_nothing():
    process = run('aloha', 'promt:=x')
    assert "did you mean prompt?" in process.communicate(timeout=60)[0]
    assert process.returncode == 2


def children_of(runner):
    """Process id by executable name."""
    found = {}
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            parent = int((folder / 'stat').read_text().rpartition(')')[2].split()[1])
            words = (folder / 'cmdline').read_text().split('\0')
        except (OSError, IndexError):
            continue
        if parent == runner.pid:
            found |= {Path(word).name: int(folder.name) for word in words[:2] if Path(word).name in NODES}
    return found


def wait_until(done, what):
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline, f'waited in vain for {what}'
        time.sleep(0.05)


@pytest.mark.usefixtures('isolated')
@pytest.mark.parametrize(('victim', 'name'), [('policy', 'apt_policy'), ('simulator', 'aloha_sim')])
def test_a_crash_during_bring_up_is_said_at_once_and_leaves_the_others_running(victim, name):
    with run('aloha', 'robot:=sim', 'use_cameras:=false') as runner:
        try:
            wait_until(lambda: children_of(runner).keys() == set(NODES), 'three nodes')
            family = children_of(runner)
            os.kill(family[victim], signal.SIGKILL)
            seen = ''
            while f'{name} ended by itself' not in seen:
                line = runner.stdout.readline()
                assert line, f'run ended: {seen}'
                seen += line
            assert children_of(runner).keys() == set(NODES) - {victim}
        finally:
            runner.send_signal(signal.SIGTERM)
            output = runner.communicate(timeout=60)[0]
    assert runner.returncode == 1, output
    assert not [pid for pid in family.values() if Path(f'/proc/{pid}').exists()]


@pytest.mark.usefixtures('isolated')
@pytest.mark.parametrize('presses', [1, 3])
def test_ctrl_c_ends_every_node_however_often_it_is_pressed(presses):
    with run('aloha', 'robot:=sim', 'use_cameras:=false') as runner:
        wait_until(lambda: children_of(runner).keys() == set(NODES), 'three nodes')
        family = children_of(runner)
        for _ in range(presses):
            runner.send_signal(signal.SIGINT)
            time.sleep(0.2)
        output = runner.communicate(timeout=60)[0]
    assert runner.returncode == 0, output
    assert re.search('stopping, the policy first', output)
    assert not [pid for pid in family.values() if Path(f'/proc/{pid}').exists()]


@pytest.mark.usefixtures('isolated')
def test_a_policy_that_refuses_ends_the_simulator_and_the_bridge_too(tmp_path):
    no_weights = tmp_path / 'weights.pt'
    no_weights.write_text('not a checkpoint')
    with run('aloha', 'robot:=sim', 'use_cameras:=false', f'checkpoint:={no_weights}') as runner:
        wait_until(lambda: children_of(runner).keys() == set(NODES), 'three nodes')
        family = children_of(runner)
        output = runner.communicate(timeout=240)[0]
    assert runner.returncode == 1, output
    assert '/apt_policy refused to configure' in output
    assert not [pid for pid in family.values() if Path(f'/proc/{pid}').exists()]


def test_a_checkpoint_that_does_not_exist_starts_nothing():
    process = run('aloha', 'checkpoint:=/nope')
    assert process.communicate(timeout=60)[0] == (
        "run: checkpoint is '/nope': there is no file or folder /nope\n")
    assert process.returncode == 2


@pytest.mark.usefixtures('isolated')
def test_a_graph_whose_nodes_run_already_is_refused_and_the_first_one_goes_on():
    context = Context()
    rclpy.init(context=context)
    first = rclpy.create_node('apt_policy', context=context)
    try:
        second = run('aloha', 'robot:=sim', 'use_cameras:=false')
        output = second.communicate(timeout=60)[0]
    finally:
        first.destroy_node()
        rclpy.shutdown(context=context)
    # A busy machine discovers the first one only while it brings up the second.
    early = 'run: already running: /apt_policy. ' in output and 'namespace:=' in output
    late = 'two nodes are named /apt_policy: end the other one first' in output
    assert (second.returncode, early, late) in ((2, True, False), (1, False, True)), output


@pytest.mark.usefixtures('isolated')
def test_of_two_nodes_with_one_name_none_is_brought_up():
    context = Context()
    rclpy.init(context=context)
    nodes = [rclpy.create_node(name, context=context) for name in ('twin', 'twin', 'asker')]
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(nodes[-1])
    try:
        with pytest.raises(BringUpError, match='two nodes are named /twin'):
            bring_up(nodes[-1], executor, '/twin', give_up=lambda: False)
    finally:
        executor.shutdown()
        for node in nodes:
            node.destroy_node()
        rclpy.shutdown(context=context)
