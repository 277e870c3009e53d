"""The table of streams, as far as it can be seen without ROS."""

import subprocess
import sys

import pytest

from apt_policy.core.stream_spec import FIXED_STREAMS, StreamKind
from apt_policy.core.stream_table import StreamTable


def test_the_type_of_images_follows_the_transport(change):
    streams = StreamTable(change({'cameras.cam_low.transport': 'compressed'}))
    assert streams.find(StreamKind.IMAGE, 'cam_low').type_name == 'sensor_msgs/msg/CompressedImage'
    assert streams.find(StreamKind.IMAGE, 'cam_high').type_name == 'sensor_msgs/msg/Image'


def test_what_a_contract_names_is_in_the_table(change):
    streams = StreamTable(change({'prompt_topic': 'kitchen/say', 'arms.left.namespace': 'near',
                                  'arms.left.state_rate_hz': 77.0, 'arms.left.max_age_s': 0.3}))
    joints = streams.find(StreamKind.JOINT_STATE, 'left')
    assert (joints.topic, joints.rate_hz, joints.max_age_s) == ('near/joint_states', 77.0, 0.3)
    assert streams.find(StreamKind.JOINT_COMMAND, 'left').topic == 'near/commands/joint_group'
    assert streams.find(StreamKind.PROMPT).topic == 'kitchen/say'


def test_a_stream_that_the_robot_lacks_is_an_error(aloha):
    with pytest.raises(KeyError, match='cam_behind'):
        StreamTable(aloha).find(StreamKind.IMAGE, 'cam_behind')


def test_every_stream_without_a_contract_is_in_every_table(aloha):
    assert set(FIXED_STREAMS.values()) <= set(StreamTable(aloha))


def test_streams_without_a_contract_are_known_without_loading_its_reader():
    """Programs that ask one service have no time for it."""
    code = ('import sys, apt_policy.core.stream_spec\n'
            'assert not {"pydantic", "yaml", "numpy", "rclpy"} & sys.modules.keys(), sorted(sys.modules)')
    subprocess.run([sys.executable, '-c', code], check=True)
