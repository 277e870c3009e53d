"""``aloha.launch.py`` under the real ``launch`` and ``launch_ros``, which only a ROS distribution has."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rclpy
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters
from rclpy.executors import SingleThreadedExecutor

from apt_bringup.arguments import ALOHA, ArgumentError, resolve

try:
    import launch
    from launch import actions as launch_actions
    from launch_ros import actions as launch_ros_actions
except ImportError:
    launch = None

pytestmark = pytest.mark.skipif(launch is None, reason='launch and launch_ros are not on PyPI')

LAUNCH = Path(__file__).resolve().parents[2] / 'launch' / 'aloha.launch.py'
RUN_LAUNCH_FILE = '''
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
service = LaunchService(noninteractive=True)
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    PythonLaunchDescriptionSource(sys.argv[1]), launch_arguments=[a.split(':=', 1) for a in sys.argv[2:]])]))
sys.exit(service.run())
'''
DRIVERS = '''
import json
from pathlib import Path
from launch import LaunchDescription
from launch.actions import OpaqueFunction
def note(context):
    Path(__file__).with_name('given').write_text(json.dumps(context.launch_configurations))
def generate_launch_description():
    return LaunchDescription([OpaqueFunction(function=note)])
'''


@pytest.fixture(scope='module')
def launch_file():
    spec = importlib.util.spec_from_file_location('aloha_launch', LAUNCH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started(launch_file, **given):
    context = launch.LaunchContext()
    context.launch_configurations.update(resolve(given))
    return launch_file.start(context)


def test_arguments_are_those_of_the_runner(launch_file):
    declared = launch_file.generate_launch_description().get_launch_arguments()
    assert [(a.name, ''.join(part.text for part in a.default_value), a.choices) for a in declared] == [
        (a.name, a.default, a.choices or None) for a in ALOHA]


def test_only_the_policy_is_managed(launch_file):
    nodes = [a for a in started(launch_file) if isinstance(a, launch_ros_actions.Node)]
    assert [node.node_executable for node in nodes] == ['simulator', 'ik_bridge', 'policy']
    managed = [node for node in nodes if isinstance(node, launch_ros_actions.LifecycleNode)]
    assert [node.node_executable for node in managed] == ['policy']


def test_the_end_of_a_node_ends_nothing_else(launch_file):
    """No handler waits for a process's end, and no node asks for a shutdown."""
    handlers = [a for a in started(launch_file) if isinstance(a, launch_actions.RegisterEventHandler)]
    assert sorted(type(h.event_handler).__name__ for h in handlers) == ['OnProcessStart', 'OnStateTransition']


def test_the_images_profile_is_set_unless_the_user_has_one(launch_file, monkeypatch):
    def profiles():
        return [a for a in started(launch_file) if isinstance(a, launch_actions.SetEnvironmentVariable)]
    monkeypatch.delenv('FASTRTPS_DEFAULT_PROFILES_FILE', raising=False)
    assert len(profiles()) == 1
    monkeypatch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', '/mine.xml')
    assert profiles() == []


def test_a_wrong_value_is_refused_before_anything_starts(launch_file):
    with pytest.raises(ArgumentError, match="seed is 'x'"):
        started(launch_file, seed='x')


def test_the_interbotix_drivers_get_their_arguments(launch_file, tmp_path, monkeypatch):
    share = tmp_path / 'share' / 'aloha' / 'launch'
    share.mkdir(parents=True)
    (share / 'aloha_bringup.launch.py').write_text(DRIVERS)
    index = tmp_path / 'share' / 'ament_index' / 'resource_index' / 'packages'
    index.mkdir(parents=True)
    (index / 'aloha').touch()
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'{tmp_path}:{os.environ["AMENT_PREFIX_PATH"]}')
    drivers = [a for a in started(launch_file, robot='aloha', use_cameras='false')
               if isinstance(a, launch_actions.IncludeLaunchDescription)]
    service = launch.LaunchService(noninteractive=True)
    service.include_launch_description(launch.LaunchDescription(drivers))
    assert service.run() == 0
    assert json.loads((share / 'given').read_text()) == {
        'launch_leaders': 'false', 'is_mobile': 'false', 'use_cameras': 'false'}


def answer(node, executor, kind, service, request):
    """The answer of a service, asked again until it exists."""
    client = node.create_client(kind, service)
    deadline = time.monotonic() + 60
    try:
        while not client.service_is_ready():
            assert time.monotonic() < deadline, f'{service} did not appear'
            time.sleep(0.1)
        future = client.call_async(request)
        executor.spin_until_future_complete(future, timeout_sec=30)
        return future.result()
    finally:
        node.destroy_client(client)


@pytest.mark.usefixtures('isolated')
def test_the_launched_policy_becomes_active_with_its_prompt_and_all_ends_on_one_signal():
    service = subprocess.Popen(
        [sys.executable, '-c', RUN_LAUNCH_FILE, str(LAUNCH), 'namespace:=cell', 'prompt:=2: on',
         'use_cameras:=false'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    rclpy.init()
    node = rclpy.create_node('asker')
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        given = answer(node, executor, GetParameters, '/cell/apt_policy/get_parameters',
                       GetParameters.Request(names=['default_prompt', 'use_sim_time']))
        assert (given.values[0].string_value, given.values[1].bool_value) == ('2: on', True)
        deadline, state = time.monotonic() + 120, ''
        while state != 'active':
            assert time.monotonic() < deadline, f'the policy is {state}'
            state = answer(node, executor, GetState, '/cell/apt_policy/get_state',
                           GetState.Request()).current_state.label
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown()
        service.send_signal(signal.SIGINT)
        output = service.communicate(timeout=60)[0]
    assert 'process has died' not in output
    assert output.count('process has finished cleanly') == 3, output
