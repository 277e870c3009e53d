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
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

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


RUNNING_DRIVERS = '''
from launch import LaunchDescription
from launch.actions import ExecuteProcess
def generate_launch_description():
    return LaunchDescription([ExecuteProcess(cmd=['sleep', '600'], name='driver')])
'''


@pytest.fixture
def interbotix(tmp_path, monkeypatch):
    """A package ``aloha`` whose launch file has this text; the folder of the file."""
    def install(text):
        share = tmp_path / 'share' / 'aloha' / 'launch'
        share.mkdir(parents=True)
        (share / 'aloha_bringup.launch.py').write_text(text)
        index = tmp_path / 'share' / 'ament_index' / 'resource_index' / 'packages'
        index.mkdir(parents=True)
        (index / 'aloha').touch()
        monkeypatch.setenv('AMENT_PREFIX_PATH', f'{tmp_path}:{os.environ["AMENT_PREFIX_PATH"]}')
        return share
    return install


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
    assert {type(h.event_handler).__name__ for h in handlers} == {'OnProcessStart', 'OnStateTransition'}


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


def test_a_checkpoint_that_does_not_exist_is_refused_before_anything_starts():
    service = launched('checkpoint:=/nope')
    output = service.communicate(timeout=60)[0]
    assert "checkpoint is '/nope'" in output and 'process started' not in output
    assert service.returncode == 1


def test_the_interbotix_drivers_get_their_arguments(launch_file, interbotix):
    share = interbotix(DRIVERS)
    drivers = [a for a in started(launch_file, robot='aloha', use_cameras='false')
               if isinstance(a, launch_actions.IncludeLaunchDescription)]
    service = launch.LaunchService(noninteractive=True)
    service.include_launch_description(launch.LaunchDescription(drivers))
    assert service.run() == 0
    assert json.loads((share / 'given').read_text()) == {
        'launch_leaders': 'false', 'is_mobile': 'false', 'use_cameras': 'false'}


def answer(node, executor, kind, service, request):
    """The answer of a service, asked again: DDS can lose a request while processes discover each other."""
    client = node.create_client(kind, service)
    deadline = time.monotonic() + 120
    try:
        while True:
            assert time.monotonic() < deadline, f'{service} did not answer'
            if not client.wait_for_service(1.0):
                continue
            future = client.call_async(request)
            executor.spin_until_future_complete(future, timeout_sec=10)
            if future.done():
                return future.result()
            client.remove_pending_request(future)
    finally:
        node.destroy_client(client)


def launched(*arguments):
    return subprocess.Popen([sys.executable, '-c', RUN_LAUNCH_FILE, str(LAUNCH), 'use_cameras:=false', *arguments],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def asker(isolated):
    """A node of the test's own, and its executor."""
    rclpy.init()
    node = rclpy.create_node('asker')
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    yield node, executor
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()


def state(asker, name):
    return answer(*asker, GetState, f'{name}/get_state', GetState.Request()).current_state.label


def wait_for_state(asker, name, wanted):
    deadline = time.monotonic() + 120
    while (now := state(asker, name)) != wanted:
        assert time.monotonic() < deadline, f'{name} is {now}'
        time.sleep(0.2)


def change(asker, name, transition, reached):
    """Ask for a transition until the node is where it leads to."""
    request = ChangeState.Request(transition=Transition(id=transition))
    deadline = time.monotonic() + 120
    while state(asker, name) != reached:
        assert time.monotonic() < deadline, f'{name} is not {reached}'
        answer(*asker, ChangeState, f'{name}/change_state', request)


def clean_up(asker, name):
    change(asker, name, Transition.TRANSITION_DEACTIVATE, 'inactive')
    change(asker, name, Transition.TRANSITION_CLEANUP, 'unconfigured')


def test_the_launched_policy_becomes_active_with_its_prompt_and_all_ends_on_one_signal(asker):
    service = launched('namespace:=cell', 'prompt:=2: on')
    try:
        given = answer(*asker, GetParameters, '/cell/apt_policy/get_parameters',
                       GetParameters.Request(names=['default_prompt', 'use_sim_time']))
        assert (given.values[0].string_value, given.values[1].bool_value) == ('2: on', True)
        wait_for_state(asker, '/cell/apt_policy', 'active')
    finally:
        service.send_signal(signal.SIGINT)
        output = service.communicate(timeout=60)[0]
    assert 'process has died' not in output
    assert output.count('process has finished cleanly') == 3, output


def test_a_policy_that_an_operator_configures_anew_waits_for_the_operator_to_activate_it(asker):
    service = launched()
    try:
        wait_for_state(asker, '/apt_policy', 'active')
        clean_up(asker, '/apt_policy')
        change(asker, '/apt_policy', Transition.TRANSITION_CONFIGURE, 'inactive')
        until = time.monotonic() + 3
        while time.monotonic() < until:
            assert state(asker, '/apt_policy') == 'inactive'
        change(asker, '/apt_policy', Transition.TRANSITION_ACTIVATE, 'active')
    finally:
        service.send_signal(signal.SIGINT)
        service.communicate(timeout=60)


def test_a_configuration_that_fails_after_the_bring_up_ends_nothing(asker):
    service = launched()
    try:
        wait_for_state(asker, '/apt_policy', 'active')
        clean_up(asker, '/apt_policy')
        nowhere = Parameter('contract', value='/nope').to_parameter_msg()
        answer(*asker, SetParameters, '/apt_policy/set_parameters', SetParameters.Request(parameters=[nowhere]))
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
        assert not answer(*asker, ChangeState, '/apt_policy/change_state', request).success
        time.sleep(2)
        assert state(asker, '/apt_policy') == 'unconfigured' and service.poll() is None
    finally:
        service.send_signal(signal.SIGINT)
        service.communicate(timeout=60)


@pytest.mark.usefixtures('isolated')
def test_a_policy_that_refuses_its_first_configuration_ends_the_launch(tmp_path):
    no_weights = tmp_path / 'weights.pt'
    no_weights.write_text('not a checkpoint')
    service = launched(f'checkpoint:={no_weights}')
    output = service.communicate(timeout=240)[0]
    assert service.returncode == 1
    assert '/apt_policy refused to configure' in output
    assert output.count('process has finished cleanly') == 3, output


def test_a_refused_bring_up_never_ends_the_drivers_because_the_arms_would_drop(asker, interbotix, tmp_path):
    interbotix(RUNNING_DRIVERS)
    no_weights = tmp_path / 'weights.pt'
    no_weights.write_text('not a checkpoint')
    service = launched('robot:=aloha', f'checkpoint:={no_weights}')
    said = []
    for line in service.stdout:
        said.append(line)
        if 'The drivers continue' in line:
            break
    # What comes now is the operator's: he mends the cause and configures, and nothing is activated behind his back.
    untrained = Parameter('checkpoint', value='').to_parameter_msg()
    answer(*asker, SetParameters, '/apt_policy/set_parameters', SetParameters.Request(parameters=[untrained]))
    change(asker, '/apt_policy', Transition.TRANSITION_CONFIGURE, 'inactive')
    time.sleep(3)
    reached, still_running = state(asker, '/apt_policy'), service.poll() is None
    service.send_signal(signal.SIGINT)
    rest = service.communicate(timeout=60)[0]
    assert (reached, still_running) == ('inactive', True), ''.join(said) + rest
    assert '/apt_policy refused to configure' in said[-1]
    assert not any('process has' in line and 'driver' in line for line in said), ''.join(said)
