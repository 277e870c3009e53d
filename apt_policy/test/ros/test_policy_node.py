"""The policy node on real DDS: what it publishes and how operators steer it."""

import time

import numpy as np
import pytest
from apt_msgs.msg import ActionChunk
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import qos_profile_system_default
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from apt_policy.core.sample import HoldReason
from apt_policy.ros.qos import Role, profile


@pytest.fixture
def heard(bench):
    """Subscribe for the length of a test; gives the growing list of messages."""
    subscriptions = []

    def listen(kind, topic, quality=qos_profile_system_default):
        messages = []
        subscriptions.append(bench.listener.node.create_subscription(
            kind, topic, lambda message: messages.append(message), quality))
        return messages
    yield listen
    for subscription in subscriptions:
        bench.listener.node.destroy_subscription(subscription)


def test_targets_are_stamped_numbered_and_in_the_frame_of_the_arms_base(bench):
    first = bench.listener.targets[-1]
    bench.until(lambda: bench.listener.targets[-1].sequence >= first.sequence + 10, 'ten targets')
    targets = [target for target in bench.listener.targets if target.sequence >= first.sequence]
    numbers = np.array([t.sequence for t in targets], int)
    stamps = np.array([t.header.stamp.sec + 1e-9 * t.header.stamp.nanosec for t in targets])
    assert (np.diff(stamps) > 0).all() and (np.diff(numbers) > 0).all()
    # A late listener misses some; a number for each control period is as many as there can be.
    assert numbers[-1] - numbers[0] <= 50.0 * (stamps[-1] - stamps[0]) + 2
    assert {t.header.frame_id for t in targets} == {'left/base'} and {t.arm for t in targets} == {'left'}
    pose = bench.listener.poses[-1]
    assert pose.header.frame_id == 'left/base'
    # The robot stands at x 0.2 in its base; the planner circles within 4 cm of that.
    assert abs(pose.pose.position.x - 0.2) < 0.05 and abs(pose.pose.position.z - 0.3) < 0.01


def test_each_inference_is_published_as_a_chunk_and_as_markers(bench, heard):
    chunks, markers = heard(ActionChunk, 'apt/chunk'), heard(MarkerArray, 'apt/plan_markers')
    bench.until(lambda: chunks and markers, 'a chunk and its markers')
    chunk = chunks[-1]
    assert chunk.header.frame_id == 'world' and chunk.prompt == 'wave' and chunk.step.nanosec == 100_000_000
    assert [arm.arm for arm in chunk.arms] == ['left', 'right']
    assert len(chunk.arms[0].poses) == len(chunk.arms[0].gripper)
    assert abs(chunk.arms[1].poses[0].position.x - 0.5) < 0.05, 'the right base stands at 0.3'
    assert {marker.ns for marker in markers[-1].markers} == {
        'left/path', 'left/states', 'right/path', 'right/states'}


def test_markers_can_be_switched_off_while_it_runs(bench, heard):
    assert not bench.set(plan_markers=False)
    chunks, markers = heard(ActionChunk, 'apt/chunk'), heard(MarkerArray, 'apt/plan_markers')
    bench.until(lambda: len(chunks) > 2, 'chunks')
    markers.clear()
    before = len(chunks)
    bench.until(lambda: len(chunks) > before + 2, 'chunks')
    assert not markers


def test_a_late_subscriber_is_told_the_active_prompt(bench, heard):
    prompts = heard(String, 'apt/active_prompt', profile(Role.LATCHED))
    bench.until(lambda: prompts, 'the latched prompt')
    assert prompts[-1].data == 'wave'


def test_diagnostics_name_the_policy_and_every_stream(bench, heard):
    arrays = heard(DiagnosticArray, '/diagnostics')

    def newest():
        # /diagnostics is one topic for all: another node of the session may speak there too.
        name = bench.policy.get_fully_qualified_name() + ': '
        own = [array for array in arrays if array.status[0].name.startswith(name)]
        return {row.name.removeprefix(name): row for row in own[-1].status} if own else {}
    bench.until(lambda: newest() and newest()['policy'].message.startswith('NONE'), 'diagnostics while targets flow')
    rows = newest()
    assert set(rows) == {'policy', 'top', 'wrist', 'left joint_states', 'right joint_states',
                         'TF left/base -> wrist_optical', 'TF left/base -> left/ee',
                         'TF right/base -> right/ee'}


def test_status_measures_every_stream_beside_the_contract(bench):
    streams = {stream.stream: stream for stream in bench.newest().streams}
    assert streams['top'].expected_rate == 20.0 and streams['top'].rate > 10.0
    bench.until(lambda: all(0.0 <= s.age < s.max_age for s in bench.newest().streams), 'streams in time')


def test_nothing_is_warned_of_while_all_is_well(bench):
    time.sleep(3.5)
    assert not [line for line in bench.log if 'publish' in line or 'subscribe' in line or 'missing' in line]


def test_disable_stops_at_once_and_enable_resumes(bench):
    assert bench.enable(False).success
    bench.held(HoldReason.DISABLED)
    assert bench.enable(True).success
    bench.flow()


def test_a_prompt_on_the_topic_is_followed_with_a_new_epoch(bench):
    epoch = bench.newest().epoch
    publisher = bench.listener.node.create_publisher(String, 'apt/prompt', profile(Role.COMMAND))
    bench.until(lambda: publisher.get_subscription_count() == 1, 'the subscription')
    publisher.publish(String(data='pick the red cube'))
    bench.until(lambda: bench.listener.prompts[-1].data == 'pick the red cube', 'the active prompt')
    bench.until(lambda: bench.listener.targets[-1].epoch > epoch, 'targets of the new epoch')
    bench.listener.node.destroy_publisher(publisher)


def test_reset_starts_a_new_epoch_and_targets_flow_on(bench):
    epoch = bench.newest().epoch
    assert bench.call(Trigger, 'apt_policy/reset').success
    bench.until(lambda: bench.listener.targets[-1].epoch > epoch, 'targets of the new epoch')


def test_targets_flow_only_while_the_dead_man_switch_is_pressed(bench):
    bench.start(dead_man_timeout_s=0.5)
    bench.held(HoldReason.DEAD_MAN, 'not pressed')
    switch = bench.listener.node.create_publisher(Bool, 'apt/dead_man', profile(Role.TARGET))
    timer = bench.listener.node.create_timer(0.05, lambda: switch.publish(Bool(data=True)))
    bench.flow()
    timer.cancel()
    bench.held(HoldReason.DEAD_MAN, 'silent')
    bench.listener.node.destroy_timer(timer)
    bench.listener.node.destroy_publisher(switch)
