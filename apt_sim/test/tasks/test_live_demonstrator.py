"""Node of the scripted expert on the simulated robot, over real DDS, with the real recorder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rosbags.highlevel import AnyReader
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from apt_policy.core import topics
from apt_policy.ros.qos import Role, profile

CONTRACT = Path(__file__).parents[3] / 'apt_bringup' / 'config' / 'aloha_sim.yaml'
DEMONSTRATOR = 'apt_sim.tasks.node'


@pytest.fixture(scope='module')
def robot(run_program):
    """Start the simulated robot and its bridge, slowly enough for a busy machine."""
    simulator = run_program('apt_sim.world.node', width=32, height=24, speed=0.5)
    run_program('apt_control.node', use_sim_time=True)
    return simulator


def test_a_reset_accepts_a_seed_and_the_objects_are_published(robot, ear):
    heard = ear.hear(MarkerArray, topics.SIM_OBJECTS, Role.STATUS)
    answers, places = [], []
    for seed in (17, 18, 17):
        value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=seed)
        request = SetParameters.Request(parameters=[Parameter(name='reset_seed', value=value)])
        assert ear.call(SetParameters, 'aloha_sim/set_parameters', request).results[0].successful
        answers.append(ear.call(Trigger, 'aloha_sim/reset', Trigger.Request()).message)
        heard.clear()
        assert ear.until(lambda: len(heard) > 1)
        places.append({marker.text: (round(marker.pose.position.x, 3), round(marker.pose.position.y, 3))
                       for marker in heard[-1].markers if marker.ns == 'object'})
    assert answers == ['episode of seed 17', 'episode of seed 18', 'episode of seed 17']
    assert places[0] == places[2] != places[1] and 'red cube' in places[0]


def test_what_was_demonstrated_is_in_the_bag_between_its_marks(robot, run_program, domain, tmp_path):
    bag, log = tmp_path / 'bag', (tmp_path / 'log').open('w+')
    recorder = subprocess.Popen(
        [sys.executable, '-m', 'apt_recorder.main', str(bag), '--contract', str(CONTRACT), '--episodes', '1',
         '--min-rate', '0.2', '--wait', '30'], stdout=log, stderr=subprocess.STDOUT,
        env={**os.environ, 'ROS_DOMAIN_ID': str(domain), 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'})
    demonstrator = run_program(DEMONSTRATOR, use_sim_time=True, skills='[pick]', episodes=1, await_recorder=True)
    assert recorder.wait(270) == 0, f'{(tmp_path / "log").read_text()}\n{demonstrator.log()}'
    assert demonstrator.wait() == 0 and '1 succeeded' in demonstrator.log()
    with AnyReader([bag]) as reader:
        found = [(connection.topic, stamp, reader.deserialize(raw, connection.msgtype))
                 for connection, stamp, raw in reader.messages()]
    marks = [(stamp, m.data) for topic, stamp, m in found if topic == f'/{topics.EPISODE}']
    (begin_ns, _), (end_ns, _) = marks[-2:]
    assert [mark for _, mark in marks[-2:]] == ['begin', 'end']
    prompt = [m.data for topic, stamp, m in found if topic == f'/{topics.ACTIVE_PROMPT}' and stamp <= begin_ns][-1]
    assert 'cube' in prompt or 'block' in prompt
    for arm in ('left', 'right'):
        targets = [stamp for topic, stamp, _ in found
                   if topic == f'/{topics.target(arm)}' and begin_ns <= stamp <= end_ns]
        # In simulated time, whatever the machine does: 50 Hz, with room for ticks that a busy machine missed.
        assert len(targets) >= 0.2 * 50.0 * (end_ns - begin_ns) / 1e9


def test_beside_another_target_publisher_the_node_ends(robot, run_program, ear):
    rival = ear.node.create_publisher(PoseStamped, topics.target_pose('left'), profile(Role.TARGET))
    demonstrator = run_program(DEMONSTRATOR, use_sim_time=True)
    assert demonstrator.wait() == 1
    assert '/apt/left/target_pose has another publisher (/ear)' in demonstrator.log()
    assert 'the demonstrator replaces the policy' in demonstrator.log()
    ear.node.destroy_publisher(rival)


def test_a_skill_that_does_not_exist_is_named(run_program):
    demonstrator = run_program(DEMONSTRATOR, skills='[pick, juggle]')
    assert demonstrator.wait() == 1
    assert 'skills is juggle, expected one or more of pick, place, hand_over, push' in demonstrator.log()
    assert 'Traceback' not in demonstrator.log()
