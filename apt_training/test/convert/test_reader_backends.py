"""Libraries that read bags: each installed one gives the same messages."""

import sys

import pytest
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from apt_training.convert.rosbag.bag_reader import RECOVERY, BagReader
from apt_training.convert.rosbag.reader_backends import ReaderChoice, available_backends
from apt_training.convert.source import ConvertError

KINDS = [(StoragePlugin.MCAP, CompressionMode.NONE), (StoragePlugin.MCAP, CompressionMode.STORAGE),
         (StoragePlugin.MCAP, CompressionMode.MESSAGE), (StoragePlugin.MCAP, CompressionMode.FILE),
         (StoragePlugin.SQLITE3, CompressionMode.NONE), (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
         (StoragePlugin.SQLITE3, CompressionMode.FILE)]
PRESENT = {'rosbags': ReaderChoice.ROSBAGS, 'rosbag2_py': ReaderChoice.ROSBAG2}
HERE = [PRESENT[reader.name] for reader in available_backends(ReaderChoice.AUTO)]


@pytest.fixture(params=HERE, ids=lambda choice: choice.value)
def reader(request):
    return request.param


def sent(messages, types):
    return [(one.topic, one.receive_ns, bytes(types.serialize_cdr(one.content, one.kind))) for one in messages]


@pytest.mark.parametrize('version', [8, 9])
@pytest.mark.parametrize(('storage', 'compression'), KINDS)
def test_every_reader_gives_what_was_written_in_the_order_of_time(reader, storage, compression, version, robot, types,
                                                                  write_bag, tmp_path):
    messages = robot.messages(0.6, compressed=True, targets=True)
    path = write_bag(tmp_path / 'bag', messages, storage=storage, compression=compression, version=version)
    with BagReader(path, reader) as bag:
        assert [PRESENT[name] for name in bag.read_by] == [reader]
        found = {name: topic.type_name for name, topic in bag.topics.items()}
        assert found == {one.topic: one.kind for one in messages}
        assert all(topic.messages == sum(one.topic == name for one in messages) for name, topic in bag.topics.items())
        assert (bag.start_ns, bag.end_ns) == (messages[0].receive_ns, messages[-1].receive_ns + 1)
        # Passes are independent: one that was left early, one within another, and one of some topics.
        next(bag.messages(bag.topics))
        found = [(topic, receive_ns, bytes(raw)) for topic, receive_ns, raw in bag.messages(bag.topics)]
        some = [(topic, receive_ns, bytes(raw)) for topic, receive_ns, raw in bag.messages(['/tf', '/nowhere'])]
        assert list(bag.messages([])) == [] and not bag.damage
    assert sorted(found) == sorted(sent(messages, types))
    assert [at for _, at, _ in found] == sorted(at for _, at, _ in found)
    assert some == [one for one in found if one[0] == '/tf'] and some


def test_every_reader_hands_out_the_definitions_that_only_the_bag_has(reader, robot, types, write_bag, tmp_path,
                                                                     monkeypatch):
    messages = robot.messages(0.3, targets=True)
    path = write_bag(tmp_path / 'bag', messages)
    if reader is ReaderChoice.ROSBAGS:
        monkeypatch.setenv('AMENT_PREFIX_PATH', '')
    with BagReader(path, reader) as bag:
        topic, _, raw = next(bag.messages(['/apt/left/target']))
        assert 0.0 <= bag.decode(topic, raw).gripper <= 1.0


@pytest.mark.parametrize('storage', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_what_no_reader_can_open_is_recovered_and_said_to_be_damaged(reader, storage, robot, types, write_bag,
                                                                     tmp_path):
    messages = robot.messages(6.0)
    path = write_bag(tmp_path / 'bag', messages, storage=storage)
    file = next(file for file in path.iterdir() if file.suffix != '.yaml')
    with file.open('r+b') as handle:
        handle.truncate(file.stat().st_size * 6 // 10)
    with BagReader(path, reader) as bag:
        found = [(topic, receive_ns, bytes(raw)) for topic, receive_ns, raw in bag.messages(bag.topics)]
        assert str(file) in bag.damage
        assert bag.read_by == (RECOVERY,) or storage is StoragePlugin.SQLITE3
    assert len(messages) / 3 < len(found) < len(messages) and found == sent(messages, types)[:len(found)]


def test_without_a_ros_distribution_rosbags_reads_and_the_other_is_refused_with_what_to_do(monkeypatch, robot,
                                                                                          write_bag, tmp_path):
    # As where it is not installed: Python's own way of saying that a module cannot be imported.
    monkeypatch.setitem(sys.modules, 'rosbag2_py', None)
    path = write_bag(tmp_path / 'bag', robot.messages(0.3))
    with BagReader(path) as bag:
        assert bag.read_by == ('rosbags',)
    with pytest.raises(ConvertError, match=r'--reader rosbag2 needs rosbag2_py, which cannot be imported: .*; source '
                                           'the ROS distribution, or use --reader rosbags'):
        BagReader(path, ReaderChoice.ROSBAG2)
