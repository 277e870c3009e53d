"""Reading of bags of every storage and compression, and of damaged bags."""

import re
import shutil
import sqlite3

import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from apt_training.convert.rosbag.bag_reader import BagReader
from apt_training.convert.source import ConvertError

MCAP, SQLITE = StoragePlugin.MCAP, StoragePlugin.SQLITE3
KINDS = [(MCAP, CompressionMode.NONE), (MCAP, CompressionMode.STORAGE), (MCAP, CompressionMode.MESSAGE),
         (MCAP, CompressionMode.FILE), (SQLITE, CompressionMode.NONE), (SQLITE, CompressionMode.MESSAGE),
         (SQLITE, CompressionMode.FILE)]


@pytest.fixture
def messages(robot):
    return robot.messages(0.6, compressed=True, targets=True)


def everything(path):
    with BagReader(path) as bag:
        found = [(topic, receive_ns, bytes(raw)) for topic, receive_ns, raw in bag.messages(bag.topics.keys())]
        return found, bag.damage


def sent(messages, types):
    return [(one.topic, one.receive_ns, bytes(types.serialize_cdr(one.content, one.kind))) for one in messages]


@pytest.mark.parametrize('version', [8, 9])
@pytest.mark.parametrize(('storage', 'compression'), KINDS)
def test_every_storage_and_compression_gives_back_what_was_written(storage, compression, version, messages, types,
                                                                   write_bag, tmp_path):
    path = write_bag(tmp_path / 'bag', messages, storage=storage, compression=compression, version=version)
    found, damage = everything(path)
    assert sorted(found) == sorted(sent(messages, types)) and not damage
    assert [at for _, at, _ in found] == sorted(at for _, at, _ in found)


@pytest.mark.parametrize(('storage', 'compression'), KINDS)
def test_a_single_file_is_a_bag_too(storage, compression, messages, types, write_bag, tmp_path):
    folder = write_bag(tmp_path / 'bag', messages, storage=storage, compression=compression)
    file = next(file for file in folder.iterdir() if file.name != 'metadata.yaml')
    found, damage = everything(file)
    assert sorted(found) == sorted(sent(messages, types)) and not damage


@pytest.mark.parametrize('metadata', ['whole', 'missing'])
def test_a_split_bag_is_read_file_after_file_with_or_without_its_metadata(metadata, messages, types, write_bag,
                                                                          tmp_path):
    folder = tmp_path / 'whole'
    folder.mkdir()
    names = []
    size = len(messages) // 12 + 1
    for part in range(0, len(messages), size):
        piece = write_bag(tmp_path / f'part{part}', messages[part:part + size])
        # Ten and more, so that their names do not sort as text.
        names.append(f'whole_{part // size}.mcap')
        (piece / f'part{part}.mcap').rename(folder / names[-1])
    assert len(names) > 10
    if metadata == 'whole':
        fields = yaml.safe_load((piece / 'metadata.yaml').read_text())
        fields['rosbag2_bagfile_information']['relative_file_paths'] = names
        (folder / 'metadata.yaml').write_text(yaml.safe_dump(fields))
    found, damage = everything(folder)
    assert found == sent(messages, types) and not damage


def test_topics_are_known_with_type_and_number_of_messages(messages, write_bag, tmp_path):
    with BagReader(write_bag(tmp_path / 'bag', messages)) as bag:
        assert bag.topics['/tf'].type_name == 'tf2_msgs/msg/TFMessage'
        assert bag.topics['/tf'].messages == sum(one.topic == '/tf' for one in messages)
        assert bag.start_ns == messages[0].receive_ns and bag.end_ns == messages[-1].receive_ns + 1


def test_a_type_that_only_the_bag_defines_can_be_read(tmp_path):
    store = get_typestore(Stores.EMPTY)
    text = 'strange_msgs/Inner[] parts\nfloat64 x\n' + '=' * 80 + '\nMSG: strange_msgs/Inner\nstring name\n'
    store.register(get_types_from_msg(text, 'strange_msgs/msg/Outer'))
    inner = store.types['strange_msgs/msg/Inner']
    message = store.types['strange_msgs/msg/Outer'](parts=[inner(name='a'), inner(name='b')], x=2.5)
    with Writer(tmp_path / 'bag', version=9, storage_plugin=MCAP) as writer:
        connection = writer.add_connection('/strange', 'strange_msgs/msg/Outer', typestore=store)
        writer.write(connection, 5, store.serialize_cdr(message, 'strange_msgs/msg/Outer'))
    with BagReader(tmp_path / 'bag') as bag:
        (topic, _, raw), = bag.messages(['/strange'])
        found = bag.decode(topic, raw)
    assert [part.name for part in found.parts] == ['a', 'b'] and found.x == 2.5


def without_definitions(folder):
    """Remove the definitions, as in bags of Humble and older."""
    with sqlite3.connect(next(folder.glob('*.db3'))) as database:
        database.executescript(
            'DROP TABLE message_definitions; DROP TABLE schema; CREATE TABLE old AS SELECT id, name, type, '
            'serialization_format, offered_qos_profiles FROM topics; DROP TABLE topics; '
            'ALTER TABLE old RENAME TO topics;')
    return folder


def test_old_bags_without_definitions_are_read_by_the_types_that_are_installed(messages, robot, write_bag, tmp_path,
                                                                             monkeypatch):
    for package in ('apt_msgs', 'interbotix_xs_msgs'):
        home = tmp_path / 'share' / package
        source = robot.types_folder(package)
        shutil.copytree(source / 'msg', home / 'msg')
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    path = without_definitions(write_bag(tmp_path / 'bag', messages, storage=SQLITE, version=8))
    with BagReader(path) as bag:
        for topic, _, raw in bag.messages(['/tf', '/apt/left/target']):
            assert bag.decode(topic, raw) is not None
        assert {topic for topic, _, _ in bag.messages(['/apt/left/target'])}


def test_a_type_that_nobody_knows_says_where_to_get_it(messages, write_bag, tmp_path, monkeypatch):
    monkeypatch.setenv('AMENT_PREFIX_PATH', '')
    path = without_definitions(write_bag(tmp_path / 'bag', messages, storage=SQLITE, version=8))
    with BagReader(path) as bag:
        topic, _, raw = next(bag.messages(['/apt/left/target']))
        with pytest.raises(ConvertError, match=r'bag: /apt/left/target: the bag has no definition of apt_msgs/msg/'
                                               r'EndEffectorTarget, and package apt_msgs is not installed'):
            bag.decode(topic, raw)


def test_bytes_that_are_not_the_message_are_an_error_that_names_bag_and_topic(messages, write_bag, tmp_path):
    path = write_bag(tmp_path / 'bag', messages)
    with BagReader(path) as bag, pytest.raises(ConvertError, match='bag: /tf: 7 bytes are'):
        bag.decode('/tf', b'\0\1\0\0abc')


@pytest.mark.parametrize('compression', [CompressionMode.NONE, CompressionMode.STORAGE, CompressionMode.MESSAGE])
@pytest.mark.parametrize('share', [0.6, 0.999])
def test_of_a_truncated_mcap_file_everything_whole_is_read_and_the_offset_named(compression, share, robot, types,
                                                                                write_bag, tmp_path):
    messages = robot.messages(7.0)
    folder = write_bag(tmp_path / 'bag', messages, compression=compression)
    file = folder / 'bag.mcap'
    whole = file.stat().st_size
    with file.open('r+b') as handle:
        handle.truncate(int(whole * share))
    found, damage = everything(folder)
    assert found == sent(messages, types)[:len(found)]
    assert len(found) > (0.75 * share if compression is not CompressionMode.STORAGE else 0) * len(messages)
    where = re.fullmatch(rf'{file} cannot be read beyond byte (\d+) of {int(whole * share)}: .*', damage)
    assert where and 0 < int(where[1]) <= int(whole * share), damage


def test_an_mcap_file_whose_recorder_was_killed_between_records_lacks_only_its_end(robot, types, write_bag, tmp_path):
    messages = robot.messages(7.0)
    file = write_bag(tmp_path / 'bag', messages) / 'bag.mcap'
    content, place, chunks = file.read_bytes(), 8, 0
    while chunks < 2:
        chunks += content[place] == 0x06
        place += 9 + int.from_bytes(content[place + 1:place + 9], 'little')
    file.write_bytes(content[:place])
    (tmp_path / 'bag' / 'metadata.yaml').unlink()
    found, damage = everything(tmp_path / 'bag')
    assert 0 < len(found) < len(messages) and found == sent(messages, types)[:len(found)]
    assert 'its index and end are missing' in damage


def test_a_corrupt_chunk_in_the_middle_ends_the_reading_there(robot, types, write_bag, tmp_path):
    messages = robot.messages(7.0)
    file = write_bag(tmp_path / 'bag', messages, compression=CompressionMode.STORAGE) / 'bag.mcap'
    content = bytearray(file.read_bytes())
    middle = content.index(b'\x28\xb5\x2f\xfd', content.index(b'\x28\xb5\x2f\xfd') + 1000)
    content[middle:middle + 200] = bytes(200)
    file.write_bytes(content)
    found, damage = everything(tmp_path / 'bag')
    assert 0 < len(found) < len(messages) and found == sent(messages, types)[:len(found)]
    assert re.search(rf'{file} cannot be read beyond byte \d+ of {len(content)}: ', damage)


def test_of_a_truncated_sqlite_file_what_comes_before_is_read_and_the_missing_end_named(robot, types, write_bag,
                                                                                        tmp_path):
    messages = robot.messages(6.0)
    file = write_bag(tmp_path / 'bag', messages, storage=SQLITE) / 'bag.db3'
    whole = file.stat().st_size
    with file.open('r+b') as handle:
        handle.truncate(whole * 6 // 10)
    found, damage = everything(tmp_path / 'bag')
    assert len(messages) / 3 < len(found) < len(messages)
    assert found == sent(messages, types)[:len(found)]
    assert f'{file} cannot be read after the message received at' in damage
    assert f'it has {whole * 6 // 10} bytes, expected {whole} by its header' in damage


@pytest.mark.parametrize('storage', [MCAP, SQLITE])
def test_an_empty_bag_and_an_empty_file_are_said_to_be_empty(storage, types, write_bag, tmp_path):
    empty = write_bag(tmp_path / 'bag', [], storage=storage)
    with pytest.raises(ConvertError, match=r'bag has no messages|has no topics'), BagReader(empty):
        pass
    nothing = tmp_path / f'nothing.{"mcap" if storage is MCAP else "db3"}'
    nothing.touch()
    with pytest.raises(ConvertError, match=rf'{nothing} cannot be read at all: it is empty'), BagReader(nothing):
        pass


@pytest.mark.parametrize('name', ['noise.mcap', 'noise.db3', 'noise.mcap.zstd'])
def test_a_file_of_something_else_is_refused_by_name(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(ConvertError, match=str(path)), BagReader(path):
        pass


def test_what_is_no_bag_is_refused_with_what_one_is(messages, write_bag, tmp_path):
    with pytest.raises(ConvertError, match='does not exist, expected a rosbag2 folder'):
        BagReader(tmp_path / 'nowhere')
    (tmp_path / 'folder').mkdir()
    with pytest.raises(ConvertError, match=r'folder is no bag: it has neither \.mcap nor \.db3 files'):
        BagReader(tmp_path / 'folder')
    (tmp_path / 'text.txt').write_text('hello')
    with pytest.raises(ConvertError, match=r"its suffix is '\.txt', expected \.mcap, \.db3"):
        BagReader(tmp_path / 'text.txt')
    bag = write_bag(tmp_path / 'bag', messages)
    (bag / 'bag.mcap').rename(tmp_path / 'elsewhere.mcap')
    with pytest.raises(ConvertError, match=r'metadata\.yaml names missing files bag\.mcap: copy the'):
        BagReader(bag)


@pytest.mark.parametrize(('names', 'said'), [
    (['..'], "metadata.yaml names the file '..', expected suffixes .mcap, .db3"),
    ([''], "metadata.yaml names the file ''"), (['/'], "metadata.yaml names the file ''"),
    (['folder.mcap'], 'metadata.yaml names missing files folder.mcap')])
def test_metadata_that_names_what_is_no_file_of_a_bag_is_refused(names, said, messages, write_bag, tmp_path):
    path = write_bag(tmp_path / 'bag', messages)
    (path / 'folder.mcap').mkdir()
    (path / 'metadata.yaml').write_text(yaml.safe_dump({'rosbag2_bagfile_information': {'relative_file_paths': names}}))
    with pytest.raises(ConvertError) as raised:
        BagReader(path)
    assert said in str(raised.value) and '\n' not in str(raised.value)


@pytest.mark.parametrize('content', [b'\xff\xfe\0', b'[1, 2]', b'5', b'{', b'rosbag2_bagfile_information: {}',
                                     b'rosbag2_bagfile_information: {relative_file_paths: [5]}'])
def test_metadata_that_says_nothing_counts_as_missing(content, messages, types, write_bag, tmp_path):
    path = write_bag(tmp_path / 'bag', messages)
    (path / 'metadata.yaml').write_bytes(content)
    found, damage = everything(path)
    assert sorted(found) == sorted(sent(messages, types)) and not damage


@pytest.mark.parametrize(('change', 'said'), [
    ('UPDATE messages SET topic_id = 77 WHERE id = 9', ''),
    ("UPDATE messages SET timestamp = 'soon' WHERE id = 9", 'cannot be read'),
    ("UPDATE messages SET data = 'text' WHERE id = 9", 'cannot be read further'),
    ("UPDATE message_definitions SET encoding = 'ros1msg'", 'is damaged')])
def test_odd_values_in_an_sqlite_file_never_end_in_a_traceback(change, said, messages, write_bag, tmp_path):
    path = write_bag(tmp_path / 'bag', messages, storage=SQLITE)
    with sqlite3.connect(path / 'bag.db3') as database:
        database.execute(change)
    try:
        found, damage = everything(path)
        assert found
    except ConvertError as error:
        damage = str(error)
    assert said in damage and '\n' not in damage
