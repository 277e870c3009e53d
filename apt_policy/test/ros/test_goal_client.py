"""A goal whose client is gone: nothing but the graph tells."""

import os
import subprocess
import sys
import time

import pytest
import rclpy
from apt_msgs.action import RunPolicy
from rclpy.action import ActionClient

from apt_policy.core.sample import HoldReason
from apt_policy.ros.graph_monitor import GoalClientMonitor

CLIENT = """
import sys
import rclpy
from apt_msgs.action import RunPolicy
from rclpy.action import ActionClient

rclpy.init()
node = rclpy.create_node('client', namespace='goals')
client = ActionClient(node, RunPolicy, 'apt_policy/run')
assert client.wait_for_server(60.0)
asked = client.send_goal_async(RunPolicy.Goal(prompt='stack'))
rclpy.spin_until_future_complete(node, asked, timeout_sec=60.0)
print(asked.result().accepted, flush=True)
sys.stdin.read()
rclpy.shutdown()
"""


@pytest.fixture
def send_goal(domain):
    """Start a program that sends a goal and stays until its input ends; it and whether the goal was accepted."""
    programs = []

    def start():
        programs.append(subprocess.Popen([sys.executable, '-c', CLIENT], text=True, stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, env={**os.environ, 'ROS_DOMAIN_ID': str(domain)}))
        return programs[-1], programs[-1].stdout.readline() == 'True\n'

    yield start
    for program in programs:
        program.kill()
        program.communicate()


def test_a_run_ends_when_its_client_has_left_even_if_another_one_came_later(open_bench, send_goal):
    # In a namespace of its own, where no action client of another test listens.
    bench = open_bench('goals')
    bench.mend()
    client, accepted = send_goal()
    assert accepted
    bench.until(lambda: bench.said("run begins, no limit (max_duration is 0): 'stack'"), 'the log of the run')
    time.sleep(4.0)
    bench.flow()
    assert not bench.said('run ended'), 'its client is still there'
    _, accepted = send_goal()
    assert not accepted
    client.communicate(timeout=60.0)
    bench.until(lambda: bench.said('run ended, CLIENT_GONE: the client of the goal left'), 'the end of the run')
    bench.held(HoldReason.NO_PROMPT)
    bench.enable(False)


def test_a_client_that_is_discovered_late_is_waited_for(domain):
    """On a busy machine the request arrives seconds before DDS tells who else the sender is."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node('late', namespace='late', context=context)
    watched = GoalClientMonitor(node, '/late/run')
    watched.track_goal(0)
    assert watched.absent_s(5 * 10**9) == 0.0
    client = ActionClient(node, RunPolicy, '/late/run')
    deadline = time.monotonic() + 20.0
    while not node.get_subscriptions_info_by_topic('/late/run/_action/feedback'):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert watched.absent_s(6 * 10**9) == 0.0
    client.destroy()
    while node.get_subscriptions_info_by_topic('/late/run/_action/feedback'):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert watched.absent_s(9 * 10**9) == 3.0, 'since it was seen last'
    watched.track_goal(20 * 10**9)
    assert watched.absent_s(33 * 10**9) == 3.0, 'nobody ever came: ten seconds more than usual'
    node.destroy_node()
    rclpy.shutdown(context=context)
