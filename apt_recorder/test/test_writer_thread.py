"""Queue of the writer thread: dropped messages are counted, and a full disk keeps all complete data."""

import os
import subprocess
import threading

import pytest

from apt_policy.core.cdr import encode_string
from apt_recorder.bag_writer import BagConfig, BagWriter
from apt_recorder.storage import BagStorage
from apt_recorder.writer_thread import WriterThread

MIB = 2**20


class SlowBag(BagWriter):
    """Bag that writes only while the gate is open."""

    def __init__(self, *given):
        self.gate = threading.Event()
        super().__init__(*given)

    def write(self, *given):
        self.gate.wait()
        super().write(*given)


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 8 MiB and return a folder on it."""
    place = tmp_path / 'disk'
    place.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', str(place)], capture_output=True,
                             text=True)
    if mounted.returncode != 0:
        pytest.skip(f'needs a small disk, and mount is not permitted here: {mounted.stderr.strip()}')
    yield place
    subprocess.run(['umount', '-l', str(place)], check=True)


def test_every_queued_message_is_written(new_bag, texts, folder):
    said = []
    writer = WriterThread(new_bag(), capacity_bytes=100 * MIB, report=said.append)
    for number in range(500):
        writer.enqueue('/text', number, encode_string(str(number)))
    writer.close(dict)
    assert [text for _, _, text in texts(folder)] == [str(number) for number in range(500)]
    assert writer.written['/text'] == 500 and not writer.dropped and not said


def test_messages_that_do_not_fit_are_dropped_counted_and_reported_once(folder, texts):
    said = []
    bag = SlowBag(folder, BagConfig())
    bag.add_topic('/text', 'std_msgs/msg/String', [])
    writer = WriterThread(bag, capacity_bytes=MIB, report=said.append)
    for number in range(30):
        writer.enqueue('/text', number, encode_string(f'{number} ' + 99_000 * 'x'))
    assert writer.dropped['/text'] == 20 and writer._queued_bytes <= MIB
    assert len(said) == 1 and 'the disk is too slow: 1 MiB wait' in said[0]
    bag.gate.set()
    writer.close(dict)
    assert len(texts(folder)) == writer.written['/text'] == 10


@pytest.mark.parametrize('storage', BagStorage, ids=lambda kind: kind.value)
@pytest.mark.parametrize('min_free', [0, MIB], ids=['to the last byte', 'with a reserve'])
def test_a_full_disk_ends_the_recording_and_keeps_all_complete_data(small_disk, texts, storage, min_free):
    said = []
    folder = small_disk / 'bag'
    bag = BagWriter(folder, BagConfig(storage=storage, min_free_bytes=min_free))
    bag.add_topic('/text', 'std_msgs/msg/String', [])
    writer = WriterThread(bag, capacity_bytes=100 * MIB, report=said.append)
    for number in range(300):
        writer.enqueue('/text', number, encode_string(f'{number} ' + os.urandom(20_000).hex()))
    writer.close(dict)
    assert writer.failure is not None
    assert 'is complete up to here' in said[0]
    found = [int(text.split()[0]) for _, _, text in texts(folder)]
    assert found == list(range(len(found)))
    assert len(found) >= 100


def test_a_bag_on_a_full_disk_is_refused_with_a_message(small_disk):
    (small_disk / 'filler').write_bytes(bytes(8 * MIB - 4096 * 4))
    with pytest.raises(Exception, match='cannot create'):
        BagWriter(small_disk / 'bag', BagConfig())
