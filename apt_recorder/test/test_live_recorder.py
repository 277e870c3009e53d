"""``apt-record`` as a user runs it: real programs, real DDS, bags read back by rosbags."""

import json
import os
import pty
import signal
import time
from collections import Counter

import pytest
import yaml
from rosbags.highlevel import AnyReader
from std_msgs.msg import String

from apt_policy.core import topics
from apt_policy.core.decode import stamp_to_ns
from apt_policy.ros.qos import Role, profile
from apt_recorder.main import main
from apt_recorder.recorder import EVENTS
from apt_recorder.streams import recorded_streams
from apt_recorder.type_definitions import TypeDefinitions


def contents(path):
    """Return every message of a bag: (topic, stamp, message)."""
    with AnyReader([path]) as reader:
        return [(connection.topic, stamp, reader.deserialize(raw, connection.msgtype))
                for connection, stamp, raw in reader.messages()]


def notes(path):
    info = yaml.safe_load((path / 'metadata.yaml').read_text())['rosbag2_bagfile_information']
    return info['custom_data']


@pytest.fixture(scope='module')
def healthy(robot):
    """Start a robot with best-effort sensors, like real ones."""
    return robot('--best-effort')


def test_every_stream_of_the_contract_is_in_the_bag_and_nothing_is_missing(healthy, record, folder, contract):
    program = record('--duration', 2)
    assert program.wait() == 0, program.said
    found = contents(folder)
    counts = Counter(topic for topic, _, _ in found)
    for camera in contract.cameras.values():
        assert counts[f'/{camera.image_topic}'] > 5 and counts[f'/{camera.info_topic}'] > 5
    for arm in contract.arms.values():
        assert counts[f'/{arm.joint_states_topic}'] > 15
    assert counts['/tf'] > 5 and counts['/tf_static'] == 1, 'latched before the recording began'
    for camera in contract.cameras.values():
        stamps = [stamp_to_ns(m.header.stamp) for topic, _, m in found if topic == f'/{camera.image_topic}']
        assert stamps == sorted(set(stamps))
    assert {len(m.data) for topic, _, m in found if 'image' in topic} == {64 * 48 * 3}
    assert json.loads(notes(folder)['dropped_by_recorder']) == {}
    assert 'no publisher of targets or joint commands' in program.said


def test_definitions_in_a_bag_are_those_that_ros_itself_uses(healthy, ear, contract):
    """Compare the hash of every recorded type with the one that DDS announces."""
    definitions, publishers = TypeDefinitions(), []
    for spec in recorded_streams(contract):
        digest = definitions.definition(spec.type_name).digest
        ends = ear.node.get_publishers_info_by_topic(spec.topic)
        publishers += [str(end.topic_type_hash) for end in ends if end.topic_type == spec.type_name]
        assert all(str(end.topic_type_hash) == digest for end in ends if end.topic_type == spec.type_name)
        assert digest.startswith('RIHS01_')
    assert ear.until(lambda: ear.node.get_publishers_info_by_topic('/tf'))


def test_a_recording_that_is_killed_outright_can_be_recovered(healthy, record, run, folder):
    program = record('--split', 1)
    program.until('recording into')
    deadline = time.monotonic() + 30
    while len(list(folder.glob('*.mcap'))) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    program.stop(signal.SIGKILL)
    recovery = run('-m', 'apt_recorder.main', '--recover', folder)
    assert recovery.wait() == 0, recovery.said
    found = contents(folder)
    assert found[-1][1] - found[0][1] > 1e9
    static = [stamp for topic, stamp, _ in found if topic == '/tf_static']
    assert len(static) >= 2, 'each file begins with what was latched'


def test_keys_mark_episodes(healthy, record, folder):
    master, slave = pty.openpty()
    # Keys are heard by programs in the foreground of their terminal only; the test's own may have none.
    program = record(stdin=slave, terminal=True)
    program.until('recording into')
    # Faster than DDS brings the marks back.
    os.write(master, b'   d')
    time.sleep(1.0)
    os.write(master, b'q')
    assert program.wait() == 0, program.said
    marks = [m.data for topic, _, m in contents(folder) if topic == f'/{topics.EPISODE}']
    assert marks == ['begin', 'end', 'begin', 'discard']
    assert (notes(folder)['episodes'], notes(folder)['discarded']) == ('1', '1')
    os.close(master)
    os.close(slave)


def test_each_new_instruction_is_an_episode_if_wanted_and_ctrl_c_ends_the_last(healthy, record, folder, ear, contract):
    prompts = ear.node.create_publisher(String, contract.prompt_topic, profile(Role.COMMAND))
    marks = ear.hear(String, topics.EPISODE, Role.COMMAND)
    program = record('--episode-per-prompt')
    program.until('recording into')
    for text, count in (('pick', 1), ('place', 3)):
        # Again and again: the same instruction twice is one episode, and DDS may discover late.
        assert ear.until(lambda t=text, n=count: prompts.publish(String(data=t)) or ear.spin(0.1) or len(marks) >= n)
    assert program.stop(signal.SIGINT) == 0, program.said
    assert 'Traceback' not in program.said
    told = (f'/{topics.EPISODE}', f'/{contract.prompt_topic}')
    said = [m.data for topic, _, m in contents(folder) if topic in told]
    changes = [word for word, before in zip(said, [None, *said], strict=False) if word != before]
    once = [word for k, word in enumerate(changes) if word not in ('pick', 'place') or word not in changes[:k]]
    assert once == ['pick', 'begin', 'place', 'end', 'begin', 'end']
    ear.node.destroy_publisher(prompts)


def test_a_stream_that_stops_and_returns_is_reported_and_marked(healthy, record, folder):
    program = record('--storage', 'sqlite3')
    program.until('recording into')
    healthy.send(signal.SIGUSR1)
    program.until('cam_low has stopped: no message on /cam_low/camera/color/image_rect_raw for')
    healthy.send(signal.SIGUSR2)
    program.until('cam_low has returned')
    assert program.stop(signal.SIGTERM) == 0, program.said
    assert 'Traceback' not in program.said
    events = [m.data for topic, _, m in contents(folder) if topic == f'/{EVENTS}' and 'cam_low' in m.data]
    assert events == [f'{what} cam_low /cam_low/camera/color/image_rect_raw' for what in ('died', 'returned')]


def test_it_refuses_to_start_and_names_every_stream_that_is_not_well(robot, record, folder, healthy):
    healthy.stop()
    broken = robot('--without', 'cam_low', '--late', 'cam_high:2.0', '--slow', 'left:0.05')
    program = record('--wait', 6)
    assert program.wait() == 1
    for error_text in ('cam_low: cam_low/camera/color/image_rect_raw has no publisher',
                       'cam_low info: cam_low/camera/color/camera_info has no publisher',
                       'cam_high: messages on cam_high/camera/color/image_rect_raw are 2.', 'left joints: ',
                      '--without NAME leaves a stream out'):
        assert error_text in program.said
    assert 'cam_left_wrist' not in program.said and not folder.exists()
    program = record('--without', 'cam_low', 'left', '--stamp-on-receipt', 'cam_high', '--duration', 0.5)
    assert program.wait() == 0, program.said
    broken.stop()


@pytest.mark.parametrize(('words', 'error_text'), [
    (['--storage', 'zip'], "--storage is 'zip'; expected one of: mcap, sqlite3"),
    (['--compress', 'chunk', '--storage', 'sqlite3'], 'sqlite3 has no chunks to compress'),
    (['--duration', '-1'], '--duration is -1; expected 0 or more'),
    (['--without', 'cam_lwo'], "cannot leave out 'cam_lwo'"),
    (['--contract', '/nowhere.yaml'], 'cannot read contract /nowhere.yaml')])
def test_a_mistake_is_named_before_anything_starts(folder, capsys, words, error_text):
    assert main([str(folder), *words]) == 2 and error_text in ' '.join(capsys.readouterr().err.split())
    assert not folder.exists()
