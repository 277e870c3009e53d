"""Every lack or defect of the input holds the arms, is named in the status, logged once, and passes."""

import itertools
import time

import cv2
import numpy as np
import pytest
import rclpy
import yaml
from geometry_msgs.msg import PoseStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

from apt_policy.core.sample import HoldReason
from apt_policy.ros.qos import Role, profile


def _silent(_message):
    return None


def _encoding(image):
    image.encoding = 'yuv9'
    return image


def _shrunk(image):
    image.height, image.data = 1, bytes(image.step)
    return image


def _uncalibrated(info):
    info.k = np.zeros(9)
    return info


def _nan_joint(state):
    state.position[0] = float('nan')
    return state


def _without_gripper(state):
    state.name, state.position = state.name[:2], state.position[:2]
    return state


def _nan_transform(message):
    message.transforms[0].transform.translation.x = float('nan')
    return message


def _unstamped(image):
    image.header.stamp.sec = image.header.stamp.nanosec = 0
    return image


BROKEN = [
    pytest.param('top/image', _silent, HoldReason.STALE_STREAM, 'top', id='a camera dies'),
    pytest.param('left/joint_states', _silent, HoldReason.STALE_STREAM, 'left joint_states', id='joints die'),
    pytest.param('/tf', _silent, HoldReason.STALE_STREAM, 'TF left/base -> ', id='TF dies'),
    pytest.param('top/image', _encoding, HoldReason.BAD_INPUT, "top: image encoding 'yuv9'", id='encoding'),
    pytest.param('top/image', _shrunk, HoldReason.BAD_INPUT, 'top: image is 64x1', id='another size'),
    pytest.param('top/image', _unstamped, HoldReason.STALE_STREAM, 'top', id='no stamps'),
    pytest.param('wrist/info', _uncalibrated, HoldReason.BAD_INPUT, 'wrist: camera info has K', id='K zero'),
    pytest.param('right/joint_states', _nan_joint, HoldReason.BAD_INPUT, "'waist' has position nan",
                 id='NaN joint'),
    pytest.param('left/joint_states', _without_gripper, HoldReason.BAD_INPUT, "lacks 'left_finger'",
                 id='joint missing'),
    pytest.param('/tf', _nan_transform, HoldReason.STALE_STREAM, 'must be finite', id='NaN in TF'),
]


@pytest.mark.parametrize(('topic', 'fault', 'reason', 'words'), BROKEN)
def test_a_broken_stream_holds_the_arms_until_it_is_whole(bench, topic, fault, reason, words):
    bench.robot.faults[topic] = fault
    bench.held(reason, words)
    # Status and log are two topics: either may come first.
    bench.until(lambda: bench.said(f'hold {reason.name}'), 'the hold in the log')
    assert bench.said(f'hold {reason.name}') <= 3, 'not with every tick'
    bench.robot.faults.clear()
    bench.flow()


def test_a_stream_slower_than_the_contract_says_is_named_but_followed(bench):
    frames = itertools.count()
    bench.robot.faults['top/image'] = lambda image: image if next(frames) % 3 == 0 else None
    bench.until(lambda: bench.said('top arrives at'), 'a warning about its rate', limit_s=30.0)
    assert 'the contract says 20' in next(line for line in bench.log if line.startswith('top arrives'))
    streams = {stream.stream: stream for stream in bench.newest().streams}
    assert not streams['top'].ok and streams['top'].rate < streams['wrist'].rate
    bench.until(lambda: bench.newest().hold_reason == HoldReason.NONE, 'targets in spite of it')


def test_a_compressed_camera_is_followed_like_a_raw_one(bench, contract_file, tmp_path):
    fields = yaml.safe_load(contract_file.read_text())
    fields['cameras']['top'] |= {'image_topic': 'top/compressed', 'transport': 'compressed'}
    path = tmp_path / 'compressed.yaml'
    path.write_text(yaml.safe_dump(fields, sort_keys=False))
    publisher = bench.listener.node.create_publisher(CompressedImage, 'top/compressed', profile(Role.SENSOR))
    jpeg = cv2.imencode('.jpg', np.full((48, 64, 3), 90, np.uint8))[1].tobytes()

    def publish():
        message = CompressedImage(format='jpeg', data=jpeg)
        message.header.stamp = bench.listener.node.get_clock().now().to_msg()
        publisher.publish(message)
    timer = bench.listener.node.create_timer(0.025, publish)
    bench.start(contract=str(path))
    bench.flow()
    assert bench.newest().chunks > 0
    bench.listener.node.destroy_timer(timer)
    bench.listener.node.destroy_publisher(publisher)


def test_a_camera_without_calibration_is_named_from_the_start(bench):
    bench.robot.faults['top/info'] = _silent
    bench.start()
    bench.held(HoldReason.MISSING_STREAM, 'top: no camera_info yet on top/info')
    bench.robot.faults.clear()
    bench.flow()


def test_stamps_that_jump_back_hold_the_arms_until_they_are_right_again(bench):
    bench.robot.shift_ns = -3_000_000_000
    reasons = (HoldReason.CLOCK_JUMP, HoldReason.STALE_STREAM)
    bench.until(lambda: bench.newest().hold_reason in reasons, 'a hold')
    time.sleep(0.1)
    sent = len(bench.listener.targets)
    time.sleep(0.4)
    assert len(bench.listener.targets) == sent and bench.newest().hold_reason in reasons
    assert bench.newest().detail
    bench.mend()


@pytest.mark.parametrize(('settings', 'words'), [
    ({'image_reliability': 'reliable'}, '/robot publishes /top/image with incompatible RELIABILITY'),
    ({'image_deadline_s': 0.5}, '/robot publishes /top/image with incompatible DEADLINE')])
def test_a_publisher_that_cannot_be_heard_is_named_with_the_policy_that_differs(bench, settings, words):
    bench.start(**settings)
    status = bench.held(HoldReason.MISSING_STREAM, words)
    assert status.detail.count('top') > 1 and 'publisher' in status.detail
    assert 1 <= bench.said(words) <= 3


def test_a_stream_with_wrong_stamps_is_followed_where_its_arrival_counts(bench):
    bench.robot.faults['top/image'] = _unstamped
    bench.start(stamp_on_receipt=['top'])
    bench.flow()


def test_a_publisher_of_another_type_is_named(bench, domain):
    bench.robot.faults['top/image'] = _silent
    elsewhere = rclpy.Context()
    rclpy.init(context=elsewhere, domain_id=domain)
    stranger = rclpy.create_node('stranger', context=elsewhere)
    stranger.create_publisher(CompressedImage, 'top/image', profile(Role.SENSOR))
    bench.held(HoldReason.STALE_STREAM, '/stranger publishes /top/image with type sensor_msgs/msg/Compressed')
    stranger.destroy_node()
    rclpy.shutdown(context=elsewhere)


def test_a_subscriber_that_cannot_hear_the_targets_is_named(bench):
    late = bench.listener.node.create_subscription(
        PoseStamped, 'apt/left/target_pose', lambda message: None,
        QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
    words = '/listener subscribes to /apt/left/target_pose with incompatible DURABILITY'
    bench.until(lambda: bench.said(words), 'a warning')
    bench.listener.node.destroy_subscription(late)


def test_a_second_publisher_on_a_target_topic_stops_ours_until_a_person_enables(bench):
    intruder = rclpy.create_node('intruder')
    intruder.create_publisher(PoseStamped, 'apt/left/target_pose', profile(Role.TARGET))
    bench.held(HoldReason.SECOND_PUBLISHER, '/apt/left/target_pose (by /intruder)')
    assert not bench.enable().success
    intruder.destroy_node()
    bench.until(lambda: bench.enable().success, 'the intruder to be gone')
    bench.flow()


PROMPTS = [pytest.param('', 'empty', id='empty'), pytest.param('  \n ', 'empty', id='blank'),
           pytest.param('x' * 10_000, '10000 bytes', id='10 kB'),
           pytest.param('a\x07b', 'U+0007', id='binary')]


@pytest.mark.parametrize(('text', 'words'), PROMPTS)
def test_a_prompt_that_cannot_be_followed_is_refused_with_the_reason(bench, text, words):
    answer = bench.prompt(text)
    assert not answer.accepted and words in answer.message
    assert bench.listener.prompts[-1].data == 'wave'


def test_without_any_good_prompt_the_refused_one_is_named(bench):
    bench.stop()
    assert bench.transition('configure') and bench.transition('activate')
    bench.enable()
    publisher = bench.listener.node.create_publisher(String, 'apt/prompt', profile(Role.COMMAND))
    bench.until(lambda: publisher.get_subscription_count() == 1, 'the subscription')
    publisher.publish(String(data='y' * 10_000))
    bench.held(HoldReason.NO_PROMPT, '10000 bytes')
    bench.listener.node.destroy_publisher(publisher)
