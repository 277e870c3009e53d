"""The queue before the disk: what it drops it counts, and a full disk costs nothing that was whole."""

import os
import subprocess
import threading

import pytest

from apt_recorder.bag import Bag, BagSettings
from apt_recorder.cdr import encoded_string
from apt_recorder.sink import Sink
from apt_recorder.storage import Storage

MIB = 2**20


class SlowBag(Bag):
    """Writes only while the gate is open."""

    def __init__(self, *given):
        self.gate = threading.Event()
        super().__init__(*given)

    def write(self, *given):
        self.gate.wait()
        super().write(*given)


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 8 MiB."""
    place = tmp_path / 'disk'
    place.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', str(place)], capture_output=True,
                             text=True)
    if mounted.returncode != 0:
        pytest.skip(f'needs a small disk, and mount is not permitted here: {mounted.stderr.strip()}')
    yield place
    subprocess.run(['umount', '-l', str(place)], check=True)


def test_everything_that_is_put_is_written(new_bag, texts, folder):
    said = []
    sink = Sink(new_bag(), capacity_bytes=100 * MIB, report=said.append)
    for number in range(500):
        sink.put('/text', number, encoded_string(str(number)))
    sink.close(dict)
    assert [text for _, _, text in texts(folder)] == [str(number) for number in range(500)]
    assert sink.written['/text'] == 500 and not sink.dropped and not said


def test_what_does_not_fit_is_dropped_counted_and_told_once(folder, texts):
    said = []
    bag = SlowBag(folder, BagSettings())
    bag.add_topic('/text', 'std_msgs/msg/String', [])
    sink = Sink(bag, capacity_bytes=MIB, report=said.append)
    for number in range(30):
        sink.put('/text', number, encoded_string(f'{number} ' + 99_000 * 'x'))
    assert sink.dropped['/text'] == 20 and sink.backlog_bytes <= MIB
    assert len(said) == 1 and 'the disk is too slow: 1 MiB wait' in said[0]
    bag.gate.set()
    sink.close(dict)
    assert len(texts(folder)) == sink.written['/text'] == 10


@pytest.mark.parametrize('storage', Storage, ids=lambda kind: kind.value)
@pytest.mark.parametrize('min_free', [0, MIB], ids=['to the last byte', 'with a reserve'])
def test_a_full_disk_ends_the_recording_and_keeps_what_is_whole(small_disk, texts, storage, min_free):
    said = []
    folder = small_disk / 'bag'
    bag = Bag(folder, BagSettings(storage=storage, min_free_bytes=min_free))
    bag.add_topic('/text', 'std_msgs/msg/String', [])
    sink = Sink(bag, capacity_bytes=100 * MIB, report=said.append)
    for number in range(300):
        sink.put('/text', number, encoded_string(f'{number} ' + os.urandom(20_000).hex()))
    sink.close(dict)
    assert sink.failure is not None
    assert 'is whole up to here' in said[0]
    found = [int(text.split()[0]) for _, _, text in texts(folder)]
    assert found == list(range(len(found)))
    assert len(found) >= 100


def test_a_bag_on_a_full_disk_is_refused_in_words(small_disk):
    (small_disk / 'filler').write_bytes(bytes(8 * MIB - 4096 * 4))
    with pytest.raises(Exception, match='cannot make'):
        Bag(small_disk / 'bag', BagSettings())
