"""Bags of the writer, read back with ``rosbags.highlevel``."""

import pytest
import yaml
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import Reader

from apt_policy.core.cdr import encode_string
from apt_recorder.bag_writer import BagConfig, BagError, BagWriter
from apt_recorder.storage import BagStorage, Compression
from apt_recorder.type_definitions import UnknownTypeError

KINDS = [(storage, compression) for storage in BagStorage for compression in Compression
         if (storage, compression) != (BagStorage.SQLITE3, Compression.CHUNK)]


def numbers(found):
    return [int(text.split()[0]) for _, _, text in found]


@pytest.mark.parametrize(('storage', 'compression'), KINDS, ids=lambda kind: kind.value)
def test_what_is_written_is_read_back_whatever_the_storage(new_bag, fill, texts, folder, storage, compression):
    bag = new_bag(storage=storage, compression=compression)
    fill(bag, 50, size=100_000)
    bag.close()
    found = texts(folder)
    assert numbers(found) == list(range(50))
    assert [stamp for _, stamp, _ in found] == [number * 10**9 for number in range(50)]


@pytest.mark.parametrize('storage', BagStorage, ids=lambda kind: kind.value)
def test_a_single_file_is_a_bag_too(new_bag, fill, texts, folder, storage):
    bag = new_bag(storage=storage)
    fill(bag, 10)
    bag.close()
    assert numbers(texts(folder / f'bag_0{storage.suffix}')) == list(range(10))


def test_metadata_counts_what_the_files_hold(new_bag, fill, folder):
    bag = new_bag(max_ns=4 * 10**9)
    fill(bag, 10)
    bag.close({'note': 'a fine day'})
    with Reader(folder) as reader:
        assert reader.message_count == 10
        assert (reader.start_time, reader.duration) == (0, 9 * 10**9 + 1)
    info = yaml.safe_load((folder / 'metadata.yaml').read_text())['rosbag2_bagfile_information']
    assert [file['message_count'] for file in info['files']] == [4, 4, 2]
    assert info['relative_file_paths'] == ['bag_0.mcap', 'bag_1.mcap', 'bag_2.mcap']
    assert info['custom_data'] == {'note': 'a fine day'}


def test_files_end_at_the_size_that_was_asked_for(new_bag, fill, texts, folder):
    bag = new_bag(max_bytes=300_000)
    fill(bag, 10, size=100_000)
    bag.close()
    assert len(list(folder.glob('*.mcap'))) == 4
    assert numbers(texts(folder)) == list(range(10))


def test_each_file_of_a_split_bag_begins_with_what_was_latched(new_bag, fill, texts, folder):
    bag = new_bag(max_ns=3 * 10**9)
    for topic in ('/static', '/prompt'):
        bag.add_topic(topic, 'std_msgs/msg/String', [])
    bag.latch_message('/static', encode_string('one'), only_last=False)
    bag.latch_message('/static', encode_string('two'), only_last=False)
    bag.latch_message('/static', encode_string('one'), only_last=False)
    bag.latch_message('/prompt', encode_string('old'), only_last=True)
    bag.latch_message('/prompt', encode_string('new'), only_last=True)
    fill(bag, 5)
    bag.close()
    second = texts(folder / 'bag_1.mcap')
    assert [(topic, text) for topic, _, text in second[:3]] == [('/static', 'one'), ('/static', 'two'),
                                                               ('/prompt', 'new')]


def test_definitions_and_quality_of_service_are_stored(new_bag, folder):
    never = QosTime(9223372036, 854775807)
    quality = Qos(QosHistory.UNKNOWN, 0, QosReliability.BEST_EFFORT, QosDurability.TRANSIENT_LOCAL, never, never,
                  QosLiveliness.AUTOMATIC, never, False)
    bag = new_bag()
    bag.add_topic('/target', 'apt_msgs/msg/EndEffectorTarget', [quality])
    bag.close()
    for path in (folder, folder / 'bag_0.mcap'):
        with AnyReader([path]) as reader:
            target = next(c for c in reader.connections if c.topic == '/target')
            assert 'geometry_msgs/Pose pose' in target.msgdef.data
            assert 'MSG: std_msgs/Header' in target.msgdef.data
            assert target.ext.offered_qos_profiles == [quality]


def test_a_topic_that_appears_late_is_recorded_too(new_bag, fill, texts, folder):
    bag = new_bag()
    fill(bag, 3, size=600_000)
    bag.add_topic('/late', 'std_msgs/msg/String', [])
    bag.add_topic('/late', 'std_msgs/msg/String', [])
    bag.write('/late', 10**10, encode_string('here'))
    bag.close()
    assert texts(folder)[-1] == ('/late', 10**10, 'here')


def test_an_empty_bag_is_a_bag(new_bag, texts, folder):
    new_bag().close()
    assert texts(folder) == []


def test_nothing_that_exists_is_written_over(new_bag, folder):
    new_bag().close()
    with pytest.raises(BagError, match='never overwritten'):
        BagWriter(folder, BagConfig())


def test_a_type_that_is_not_installed_is_named(new_bag):
    bag = new_bag()
    with pytest.raises(UnknownTypeError, match='no_such_msgs is not installed'):
        bag.add_topic('/odd', 'no_such_msgs/msg/Odd', [])
    with pytest.raises(UnknownTypeError, match=r'Odd.msg does not exist'):
        bag.add_topic('/odd', 'std_msgs/msg/Odd', [])


def test_a_storage_without_chunks_cannot_compress_them():
    with pytest.raises(ValueError, match='sqlite3 has no chunks'):
        BagConfig(storage=BagStorage.SQLITE3, compression=Compression.CHUNK)


def test_a_recording_ends_while_the_disk_still_has_room(new_bag, fill, texts, folder):
    bag = new_bag(min_free_bytes=2**60)
    fill(bag, 3)
    with pytest.raises(BagError, match='less than the 1099511627776 MiB to keep free'):
        bag.flush()
    assert numbers(texts(folder)) == [0, 1, 2]
