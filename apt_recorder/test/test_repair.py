"""Recovery after a crash: programs that are killed, files that are cut."""

import subprocess
import sys
import time

import pytest

from apt_recorder.main import main
from apt_recorder.repair import RepairError, recover_bag, repair_file
from apt_recorder.storage import BagStorage

# Writes half a second of texts, says so, and would go on.
RECORDING = '''
import sys, time
from pathlib import Path
from apt_recorder.bag_writer import BagWriter, BagConfig
from apt_policy.core.cdr import encode_string
from apt_recorder.storage import BagStorage
bag = BagWriter(Path(sys.argv[1]), BagConfig(storage=BagStorage(sys.argv[2]), max_ns=int(sys.argv[3])))
bag.add_topic('/text', 'std_msgs/msg/String', [])
for number in range(30):
    bag.write('/text', number, encode_string(f'{number} ' + 100_000 * 'x'))
bag.flush()
bag.write('/text', 30, encode_string('30 not flushed'))
print('written', flush=True)
time.sleep(60)
'''


@pytest.fixture
def killed(folder):
    """Return a function that makes a recording and kills it."""
    def record(storage, split=0):
        process = subprocess.Popen([sys.executable, '-c', RECORDING, str(folder), storage.value, str(split)],
                                   stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == 'written\n'
        process.kill()
        process.wait()
        return folder
    return record


def numbers(found):
    return [int(text.split()[0]) for _, _, text in found]


@pytest.mark.parametrize('split', [0, 12], ids=['one file', 'split'])
@pytest.mark.parametrize('storage', BagStorage, ids=lambda kind: kind.value)
def test_what_was_flushed_survives_a_kill(killed, texts, storage, split):
    folder = killed(storage, split)
    parts = recover_bag(folder)
    assert numbers(texts(folder)) == list(range(30))
    assert sum(part.messages for part in parts) == 30
    assert not (folder / '.ballast').exists()


def test_the_finished_files_of_a_split_bag_need_no_recovery(killed, texts):
    assert numbers(texts(killed(BagStorage.MCAP, 12))) == list(range(24))


def test_the_program_recovers_and_says_what_it_found(killed, texts, capsys):
    folder = killed(BagStorage.MCAP)
    assert main(['--recover', str(folder)]) == 0
    assert 'bag_0.mcap: 30 messages' in capsys.readouterr().err
    assert main(['--recover', str(folder)]) == 0, 'a second time changes nothing'
    assert numbers(texts(folder)) == list(range(30))


def test_a_file_cut_anywhere_yields_its_whole_chunks(new_bag, fill, texts, folder, tmp_path):
    bag = new_bag()
    fill(bag, 30, size=200_000)
    bag.close()
    data = (folder / 'bag_0.mcap').read_bytes()
    counts = []
    for share in (0.2, 0.5, 0.7, 0.9, 0.9999, 1.0):
        path = tmp_path / f'cut_{share}.mcap'
        path.write_bytes(data[:int(share * len(data))])
        repair_file(path)
        found = numbers(texts(path))
        assert found == list(range(len(found)))
        counts.append(len(found))
    assert counts == sorted(counts) and counts[0] >= 5 and counts[-2:] == [30, 30]


def test_zeros_behind_a_power_failure_are_cut_off(new_bag, fill, texts, folder):
    bag = new_bag()
    fill(bag, 12, size=200_000)
    bag.flush()
    bag._storage_file.abort()
    path = folder / 'bag_0.mcap'
    path.write_bytes(path.read_bytes() + bytes(5000))
    assert repair_file(path).messages == 12
    assert numbers(texts(path)) == list(range(12))


@pytest.mark.parametrize(('name', 'content', 'error_text'), [
    ('bag_0.mcap', b'', 'does not begin with the MCAP magic bytes'),
    ('bag_0.mcap', b'something else entirely', 'does not begin with the MCAP magic bytes'),
    ('bag_0.db3', b'something else entirely', 'cannot recover .*bag_0.db3'),
    ('notes.txt', b'', 'is no bag: it has neither .mcap nor .db3 files')])
def test_where_nothing_can_be_recovered_the_file_is_named(folder, name, content, error_text):
    folder.mkdir()
    (folder / name).write_bytes(content)
    with pytest.raises(RepairError, match=error_text):
        recover_bag(folder)


def test_a_file_that_cannot_be_recovered_does_not_hide_the_others(new_bag, fill, texts, folder):
    bag = new_bag(max_ns=10**9)
    fill(bag, 2)
    bag.close()
    broken = next(folder.glob('bag_1*'))
    broken.write_bytes(b'')
    parts = recover_bag(folder)
    assert broken.name not in [part.name for part in parts]
    assert numbers(texts(folder)) == [0]


def test_recovery_is_quick_for_what_is_whole(new_bag, fill, folder):
    bag = new_bag()
    fill(bag, 100, size=100_000)
    bag.close()
    before = (folder / 'bag_0.mcap').stat().st_mtime_ns
    time.sleep(0.01)
    recover_bag(folder)
    assert (folder / 'bag_0.mcap').stat().st_mtime_ns == before
