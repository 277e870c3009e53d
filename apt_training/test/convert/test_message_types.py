"""Decoding of the messages of a bag: serialization, names of types, and definitions from two sources."""

import shutil
import sqlite3
from pathlib import Path

import pytest
import yaml
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from apt_training.convert.rosbag.bag_reader import BagReader
from apt_training.convert.source import ConvertError

STORAGES = [StoragePlugin.MCAP, StoragePlugin.SQLITE3]
TEXT = 'std_msgs/msg/String'
TARGET = 'apt_msgs/msg/EndEffectorTarget'


@pytest.fixture
def nothing_installed(monkeypatch):
    monkeypatch.setenv('AMENT_PREFIX_PATH', '')


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs one type in the only prefix."""
    def put(kind, text):
        package, group, name = kind.split('/')
        path = tmp_path / 'prefix' / 'share' / package / group / f'{name}.msg'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path / 'prefix'))
        return path
    return put


@pytest.fixture
def bag_of(tmp_path):
    """Return a function that writes a bag with one message of a given type and definition."""
    def write(raw, kind=TEXT, text='string data\n', *, storage=StoragePlugin.MCAP, serialization='cdr', folder='bag'):
        with Writer(tmp_path / folder, version=9, storage_plugin=storage) as writer:
            made = writer.add_connection('/said', kind, msgdef=text, rihs01='RIHS01_' + 64 * '0',
                                         serialization_format=serialization)
            writer.write(made, 5, raw)
        return tmp_path / folder
    return write


def word(text):
    store = get_typestore(Stores.LATEST)
    return bytes(store.serialize_cdr(store.types[TEXT](data=text), TEXT))


def only_message(path):
    with BagReader(path) as bag:
        (topic, _, raw), = bag.messages(bag.topics)
        return bag.decode(topic, raw)


@pytest.mark.parametrize('storage', STORAGES)
def test_messages_that_are_not_cdr_are_refused_with_file_topic_and_both_formats(storage, bag_of):
    path = bag_of(b'{"data": "hello"}', storage=storage, serialization='json')
    file, = (file for file in path.iterdir() if file.suffix != '.yaml')
    # The file itself is asked, whatever stands beside it.
    (path / 'metadata.yaml').unlink()
    with BagReader(path) as bag, pytest.raises(ConvertError) as raised:
        bag.messages(['/said'])
    assert str(raised.value).startswith(f"{file}: /said is serialized as 'json', expected 'cdr': ")


@pytest.mark.parametrize('storage', STORAGES)
def test_the_serialization_that_metadata_names_counts_as_well(storage, bag_of):
    path = bag_of(word('hello'), storage=storage)
    metadata = path / 'metadata.yaml'
    fields = yaml.safe_load(metadata.read_text())
    fields['rosbag2_bagfile_information']['topics_with_message_count'][0]['topic_metadata'][
        'serialization_format'] = 'protobuf'
    metadata.write_text(yaml.safe_dump(fields))
    expected = r"metadata\.yaml: /said is serialized as 'protobuf'"
    with BagReader(path) as bag, pytest.raises(ConvertError, match=expected):
        bag.messages(['/said'])


def test_a_topic_that_is_not_read_may_be_serialized_in_any_way(types, tmp_path):
    with Writer(tmp_path / 'bag', version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        said = writer.add_connection('/said', TEXT, typestore=types)
        other = writer.add_connection('/other', 'std_msgs/msg/Bool', typestore=types, serialization_format='json')
        writer.write(other, 4, b'{}')
        writer.write(said, 5, word('hello'))
    with BagReader(tmp_path / 'bag') as bag:
        (topic, _, raw), = bag.messages(['/said'])
        assert bag.decode(topic, raw).data == 'hello' and not bag.damage
        with pytest.raises(ConvertError, match=r"bag\.mcap: /other is serialized as 'json'"):
            bag.messages(['/said', '/other'])


@pytest.mark.parametrize('storage', STORAGES)
def test_a_type_that_is_named_as_in_ros_1_is_the_one_of_ros_2(storage, bag_of, nothing_installed):
    path = bag_of(word('hello'), 'std_msgs/String', storage=storage)
    with BagReader(path) as bag:
        assert bag.topics['/said'].type_name == TEXT
    assert only_message(path).data == 'hello'


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('kind', ['', 'String', 'std_msgs', 'std_msgs/', '/String', 'std_msgs/msg/extra/String',
                                  '../msg/String', 'std msgs/msg/String'])
def test_a_type_whose_name_is_none_is_refused_by_a_sentence(kind, storage, bag_of):
    with pytest.raises(ConvertError) as raised:
        only_message(bag_of(word('hello'), kind, '', storage=storage))
    assert str(raised.value).endswith(f'bag: /said: {kind!r} is no message type, expected package/msg/Name, such as '
                                      'sensor_msgs/msg/Image')


def test_an_odd_type_of_a_topic_that_is_not_read_does_not_matter(robot, write_bag, job, episodes_of, tmp_path):
    path = write_bag(tmp_path / 'bag', robot.messages(1.0), storage=StoragePlugin.SQLITE3)
    with sqlite3.connect(path / 'bag.db3') as database:
        database.execute("INSERT INTO topics SELECT 99, '/odd', 'odd', serialization_format, offered_qos_profiles, "
                         "type_description_hash FROM topics LIMIT 1")
    (found,) = episodes_of(job(path))
    assert len(found[1]) == 9


def test_an_installed_definition_comes_before_the_one_that_rosbags_ships(bag_of, install):
    install(TEXT, 'string data\nuint8 volume\n')
    path = bag_of(word('hello') + b'\7', text='string data\nuint8 volume\n')
    assert only_message(path).volume == 7


@pytest.mark.parametrize('inside', ['float64 data\n', 'string data\nuint8 volume\n', 'string text\n', '# nothing\n'])
def test_a_definition_in_a_bag_that_differs_from_the_shipped_one_is_refused_with_both_named(inside, bag_of,
                                                                                            nothing_installed):
    with BagReader(bag_of(word('hello'), text=inside)) as bag, pytest.raises(ConvertError) as raised:
        bag.messages(['/said'])
    said = str(raised.value)
    assert f'bag: /said: {TEXT} is defined differently in the bag and in rosbags: field ' in said
    assert 'source the workspace with which the bag was recorded' in said and '\n' not in said


def test_a_definition_in_a_bag_that_differs_from_the_installed_one_names_file_and_field(bag_of, install):
    path = install(TARGET, 'float64 gripper\nstd_msgs/Header header\n')
    bag_path = bag_of(b'\0\1\0\0' + bytes(8), TARGET, 'float32 gripper\n')
    with BagReader(bag_path) as bag, pytest.raises(ConvertError) as raised:
        bag.messages(['/said'])
    assert (f"/said: {TARGET} is defined differently in the bag and in {path}: field 1 is 'float32 gripper' in the "
            "bag, 'float64 gripper' there: ") in str(raised.value)


def test_a_wrong_definition_of_a_part_does_not_hide_the_known_one_either(bag_of, nothing_installed):
    rule = '=' * 80
    text = f'std_msgs/Header header\n{rule}\nMSG: std_msgs/Header\nuint32 seq\ntime stamp\nstring frame_id\n'
    with BagReader(bag_of(bytes(64), 'my_msgs/msg/Own', text)) as bag, pytest.raises(ConvertError, match=(
            r'/said: std_msgs/msg/Header \(used by my_msgs/msg/Own\) is defined differently in the bag and '
            r"in rosbags: field 1 is 'uint32 seq' in the bag, 'builtin_interfaces/msg/Time stamp' there: ")):
        bag.messages(['/said'])


def test_a_bag_whose_files_contradict_each_other_is_refused(bag_of, nothing_installed):
    folder = bag_of(b'\0\1\0\0' + bytes(8), 'my_msgs/msg/Own', 'float32 x\n')
    second = bag_of(b'\0\1\0\0' + bytes(8), 'my_msgs/msg/Own', 'float64 x\n', folder='second')
    (second / 'second.mcap').rename(folder / 'second.mcap')
    (folder / 'metadata.yaml').unlink()
    with BagReader(folder) as bag, pytest.raises(ConvertError, match=(
            r'my_msgs/msg/Own is defined differently in the bag and elsewhere in it: field 1 is '
            "'float64 x' in the bag, 'float32 x' there")):
        bag.messages(['/said'])


@pytest.mark.parametrize('inside', [
    '# with a comment\nuint8 LOUD=3\nstring data "hello"\n', 'string DATA\n', '???\n',
    'string data\n' + '=' * 80 + '\nMSG: not/one\n???\n'])
def test_a_definition_in_a_bag_that_reads_the_same_bytes_or_cannot_be_parsed_leaves_the_known_one(inside, bag_of,
                                                                                                  nothing_installed):
    assert only_message(bag_of(word('hello'), text=inside)).data == 'hello'


@pytest.mark.parametrize(('inside', 'said'), [
    ('???\n', 'cannot parse the definition of my_msgs/msg/Own in the bag: '),
    ('my_msgs/Own own\n', 'my_msgs/msg/Own contains itself through my_msgs/msg/Own'),
    ('other_msgs/Part part\n', 'the bag has no definition of other_msgs/msg/Part, and package other_msgs is not'),
    ('wstring name\n', 'my_msgs/msg/wstring')])
def test_a_definition_that_only_the_bag_has_and_nobody_can_use_is_refused_on_one_line(inside, said, bag_of,
                                                                                      nothing_installed):
    with pytest.raises(ConvertError) as raised:
        only_message(bag_of(bytes(16), 'my_msgs/msg/Own', inside))
    assert said in str(raised.value) and '\n' not in str(raised.value) and len(str(raised.value)) < 500


def test_an_installed_file_that_cannot_be_parsed_is_named(bag_of, install):
    path = install(TEXT, '???\n')
    with pytest.raises(ConvertError, match=f'/said: cannot parse {path}: '):
        only_message(bag_of(word('hello')))


def test_a_service_is_not_looked_for_among_the_messages(bag_of, install):
    path = install(TEXT, '???\n')
    with pytest.raises(ConvertError) as raised:
        only_message(bag_of(b'', kind='std_msgs/srv/String', text='???'))
    assert str(path) not in str(raised.value) and 'std_msgs/srv/String' in str(raised.value)


def test_definitions_as_this_machine_has_them_agree_with_those_of_a_bag_of_the_same_distribution(bag_of):
    """Otherwise bags of the same distribution would be refused."""
    store = get_typestore(Stores.LATEST)
    kinds = ['sensor_msgs/msg/Image', 'sensor_msgs/msg/CameraInfo', 'sensor_msgs/msg/JointState', 'std_msgs/msg/Char',
             'std_msgs/msg/Empty', 'geometry_msgs/msg/PoseStamped', 'tf2_msgs/msg/TFMessage']
    for number, kind in enumerate(kinds):
        text, _ = store.generate_msgdef(kind, ros_version=2)
        with BagReader(bag_of(bytes(8), kind, text, folder=f'bag{number}')) as bag:
            assert bag.messages(['/said']) is not None


def test_a_wrong_definition_ends_the_conversion_of_its_bag_on_one_line(robot, write_bag, job, episodes_of,
                                                                       tmp_path):
    path = write_bag(tmp_path / 'bag', robot.messages(1.0), storage=StoragePlugin.SQLITE3)
    spoiled = Path(shutil.copytree(path, tmp_path / 'spoiled'))
    with sqlite3.connect(spoiled / 'bag.db3') as database:
        database.execute("UPDATE message_definitions SET encoded_message_definition = 'float32 x' "
                         "WHERE topic_type = 'sensor_msgs/msg/JointState'")
    with pytest.raises(ConvertError, match='spoiled: /follower_left/joint_states: sensor_msgs/msg/JointState is '
                                           'defined differently in the bag and in ') as raised:
        episodes_of(job(spoiled))
    assert '\n' not in str(raised.value)
