"""Files and folders are there whole or not at all, whatever ends the writer."""

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest

from apt_policy.core.atomic import (
    PartialFile,
    PartialFolder,
    atomic_file,
    atomic_folder,
    backup_path,
    remove_partials_of,
    write_text,
)

OTHER_PID = 2**22 + 1
"""No process has it: it is beyond the kernel's limit."""
OF_FILE = """
import os, signal, sys
from pathlib import Path
from apt_policy.core.atomic import atomic_file
with atomic_file(Path(sys.argv[1])) as path:
    path.write_text('half')
    os.kill(os.getpid(), signal.SIGKILL)
"""
OF_FOLDER = """
import os, signal, sys
from pathlib import Path
from apt_policy.core.atomic import atomic_folder
with atomic_folder(Path(sys.argv[1]), overwrite=True) as path:
    path.mkdir()
    (path / 'half').touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
# What the kernel says where a file may grow no further is what it says where the disk has no room: half is written.
ON_A_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from apt_policy.core.atomic import write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_text(Path(sys.argv[1]), 'x' * 200_000)
except OSError as error:
    raise SystemExit(error.errno)
"""

# Tells in which order folders are opened, which is for fsync, and things are renamed.
WATCHED = """
import os, sys
from pathlib import Path
from apt_policy.core import atomic
target, kind = Path(sys.argv[1]), sys.argv[2]
def tell(event, arguments):
    if event == 'open' and os.path.isdir(arguments[0]) or event == 'os.rename':
        print(event, os.path.basename(arguments[0]), flush=True)
def write():
    if kind == 'file':
        return atomic.write_text(target, 'new', durable=True)
    with atomic.atomic_folder(target, overwrite=True, durable=True) as path:
        (path / 'within').mkdir(parents=True)
sys.addaudithook(tell)
write()
"""


def run(code, target):
    """Exit status of a process that writes ``target``, and its number."""
    process = subprocess.Popen([sys.executable, '-c', code, str(target)])
    return process.wait(60), process.pid


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*'))


def fsynced_and_renamed(target, kind):
    done = subprocess.run([sys.executable, '-c', WATCHED, str(target), kind], capture_output=True, text=True,
                          timeout=60, check=True)
    return [tuple(line.split()) for line in done.stdout.splitlines()]


def rest(name, *, thread=OTHER_PID, pid=OTHER_PID):
    return f'.{name}.t{thread}.p{pid}.partial'


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'notes.json'
    path.write_text('old')
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / 'bag'
    path.mkdir()
    (path / 'old').touch()
    return path


def test_a_file_is_the_old_one_until_the_new_one_is_whole(file):
    with atomic_file(file) as path:
        path.write_text('new')
        assert file.read_text() == 'old' and path.parent == file.parent
    assert file.read_text() == 'new' and names(file.parent) == ['notes.json']


def test_a_folder_is_the_old_one_until_the_new_one_is_whole(folder):
    with atomic_folder(folder, overwrite=True) as path:
        path.mkdir()
        (path / 'new').touch()
        assert names(folder) == ['old'] and path.name == folder.name
    assert names(folder.parent) == ['bag', 'bag/new']


def test_folders_above_a_new_folder_are_made(tmp_path):
    with atomic_folder(tmp_path / 'a' / 'b', overwrite=False, durable=True) as path:
        (path / 'within').mkdir(parents=True)
        (path / 'within' / 'x').write_text('y')
    assert names(tmp_path) == ['a', 'a/b', 'a/b/within', 'a/b/within/x']


@pytest.mark.parametrize('durable', [False, True])
def test_text_is_written_whole(tmp_path, durable):
    write_text(tmp_path / 'latest', 'iter_7\n', durable=durable)
    assert (tmp_path / 'latest').read_text() == 'iter_7\n' and names(tmp_path) == ['latest']


def fail_in_a_file(target):
    with atomic_file(target) as path:
        path.write_text('half')
        raise KeyboardInterrupt


def fail_in_a_folder(target):
    with atomic_folder(target, overwrite=True) as path:
        path.mkdir()
        (path / 'half').touch()
        raise OSError(errno.ENOSPC, 'full')


def test_an_error_in_the_middle_leaves_the_old_file_and_nothing_else(file):
    with pytest.raises(KeyboardInterrupt):
        fail_in_a_file(file)
    assert file.read_text() == 'old' and names(file.parent) == ['notes.json']


def test_an_error_in_the_middle_leaves_the_old_folder_and_nothing_else(folder):
    with pytest.raises(OSError, match='full'):
        fail_in_a_folder(folder)
    assert names(folder.parent) == ['bag', 'bag/old']


def test_a_writer_that_wrote_nothing_spoils_nothing(file, folder):
    with pytest.raises(FileNotFoundError), atomic_file(file):
        pass
    with pytest.raises(FileNotFoundError), atomic_folder(folder, overwrite=True):
        pass
    assert names(file.parent) == ['bag', 'bag/old', 'notes.json'] and file.read_text() == 'old'


def test_a_folder_that_is_there_is_not_written_over_unasked(folder):
    refused = pytest.raises(FileExistsError, match=r'is not overwritten; choose another name.*bag')
    with refused, atomic_folder(folder, overwrite=False) as path:
        path.mkdir()
    assert names(folder.parent) == ['bag', 'bag/old']


def come_second_with_a_folder(target):
    with atomic_folder(target, overwrite=False) as path:
        path.mkdir()
        target.mkdir()
        (target / 'theirs').touch()


def test_what_another_one_put_there_meanwhile_is_not_written_over(tmp_path):
    with pytest.raises(FileExistsError):
        come_second_with_a_folder(tmp_path / 'folder')
    assert names(tmp_path) == ['folder', 'folder/theirs']


def test_an_empty_folder_gives_way(tmp_path):
    (tmp_path / 'out').mkdir()
    with atomic_folder(tmp_path / 'out', overwrite=False) as path:
        path.mkdir()
        (path / 'new').touch()
    assert names(tmp_path) == ['out', 'out/new']


def test_kill_leaves_the_old_file_whole_and_the_next_writer_tidies_up(file):
    status, pid = run(OF_FILE, file)
    assert status == -signal.SIGKILL
    assert file.read_text() == 'old' and names(file.parent) == [rest('notes.json', thread=pid, pid=pid), 'notes.json']
    write_text(file, 'new')
    assert file.read_text() == 'new' and names(file.parent) == ['notes.json']


def test_kill_leaves_the_old_folder_whole_and_the_next_writer_tidies_up(folder):
    status, pid = run(OF_FOLDER, folder)
    assert status == -signal.SIGKILL
    assert names(folder) == ['old'] and (folder.parent / rest('bag', thread=pid, pid=pid) / 'bag' / 'half').exists()
    with atomic_folder(folder, overwrite=True) as path:
        path.mkdir()
    assert names(folder.parent) == ['bag']


def test_a_full_disk_leaves_the_old_file_and_nothing_else(file):
    status, _ = run(ON_A_FULL_DISK, file)
    assert status in (errno.EFBIG, errno.ENOSPC)
    assert file.read_text() == 'old' and names(file.parent) == ['notes.json']


def test_only_rests_of_the_same_target_are_removed(file):
    kept = [rest('notes.json.bak'), rest('notes.json.1'), rest('notes.json.t1'), rest('notesxjson'), rest('other'),
            '.notes.json.partial', '.notes.json.7.partial', f'{rest("notes.json")}.txt']
    gone = [rest('notes.json'), rest('notes.json', thread=8), rest('notes.json', pid='9' * 30)]
    for name in (*kept, *gone):
        (file.parent / name).touch()
    write_text(file, 'new')
    assert names(file.parent) == sorted([*kept, 'notes.json'])


def test_a_file_spares_what_is_being_written_under_its_name_and_a_number(tmp_path):
    with atomic_file(tmp_path / 'a.1') as path:
        path.write_text('numbered')
        write_text(tmp_path / 'a', 'plain')
    assert (tmp_path / 'a.1').read_text() == 'numbered' and names(tmp_path) == ['a', 'a.1']


def test_what_another_living_process_is_writing_is_spared(file):
    writer = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)
    begun = file.parent / rest('notes.json', thread=writer.pid, pid=writer.pid)
    begun.touch()
    write_text(file, 'new')
    assert begun.exists()
    writer.communicate(b'\n', timeout=60)
    write_text(file, 'newer')
    assert names(file.parent) == ['notes.json']


def test_what_another_living_thread_is_writing_is_spared(file):
    begun, done, texts = threading.Event(), threading.Event(), []

    def write():
        with atomic_file(file) as path:
            path.write_text('slow')
            begun.set()
            done.wait(30)
            texts.append(path.read_text() if path.exists() else 'gone')

    thread = threading.Thread(target=write)
    thread.start()
    assert begun.wait(30)
    write_text(file, 'quick')
    done.set()
    thread.join(30)
    assert texts == ['slow'] and file.read_text() == 'slow'


def test_what_a_thread_of_ours_that_ended_left_is_removed(file):
    thread = threading.Thread(target=lambda: PartialFile(file).path.touch())
    thread.start()
    thread.join(30)
    assert len(names(file.parent)) == 2
    write_text(file, 'new')
    assert names(file.parent) == ['notes.json']


def test_a_durable_file_has_its_name_on_the_disk(file):
    steps = fsynced_and_renamed(file, 'file')
    assert [event for event, _ in steps] == ['os.rename', 'open'] and steps[-1] == ('open', file.parent.name)


def test_a_durable_folder_has_all_names_on_the_disk(tmp_path):
    """Those in it before it is in place; its own after that, and those of folders that were made above it."""
    steps = fsynced_and_renamed(tmp_path / 'above' / 'bag', 'folder')
    renamed = steps.index(('os.rename', 'bag'))
    assert ('open', tmp_path.name) in steps
    assert {('open', 'bag'), ('open', 'within')} <= set(steps[:renamed])
    assert ('open', 'above') in steps[renamed:]


def test_a_durable_folder_that_takes_anothers_place_is_on_the_disk_before_that_one_goes(folder):
    steps = fsynced_and_renamed(folder, 'folder')
    assert [step for step in steps if step[0] == 'os.rename'] == [('os.rename', 'bag')] * 2
    # What is removed is opened too, after the folder in which both are.
    last = max(i for i, step in enumerate(steps) if step[0] == 'os.rename')
    assert steps[last + 1] == ('open', folder.parent.name)


def test_where_many_write_the_same_nobody_removes_what_another_one_has_begun(file):
    begun = file.parent / rest('notes.json')
    begun.touch()
    write_text(file, 'new', shared=True)
    assert begun.exists() and file.read_text() == 'new'


def test_threads_that_write_the_same_target_do_not_meet(tmp_path):
    both, failures = threading.Barrier(2, timeout=30), []

    def write(text):
        try:
            with atomic_file(tmp_path / 'x', shared=True) as path:
                path.write_text(text)
                both.wait()
                assert path.read_text() == text
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(text,)) for text in ('one', 'two')]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures and names(tmp_path) == ['x']


def test_rests_of_a_process_are_found_by_its_number(tmp_path):
    for name in (rest('a.h5'), rest('b', thread=5), rest('c', pid=5), 'd'):
        (tmp_path / name).touch()
    (tmp_path / rest('bag') / 'bag').mkdir(parents=True)
    remove_partials_of(OTHER_PID, tmp_path)
    assert names(tmp_path) == [rest('c', pid=5), 'd']


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(folder):
    partial = PartialFolder(folder, overwrite=True)
    partial.begin()
    with pytest.raises(FileNotFoundError):
        partial.publish()
    partial.discard()
    assert names(folder.parent) == ['bag', 'bag/old']


def test_an_older_folder_that_was_left_aside_goes_when_the_newer_one_is_in_place(folder):
    """As after a loss of power between two renamings."""
    folder.rename(backup_path(folder))
    with atomic_folder(folder, overwrite=True) as path:
        path.mkdir()
    assert names(folder.parent) == ['bag']


def test_the_only_good_folder_is_back_in_its_place_when_the_next_writer_begins(folder):
    folder.rename(backup_path(folder))
    with pytest.raises(OSError, match='full'):
        fail_in_a_folder(folder)
    assert names(folder.parent) == ['bag', 'bag/old']


def test_the_only_good_folder_is_not_written_over_unasked_where_it_was_left_aside(folder):
    folder.rename(backup_path(folder))
    with pytest.raises(FileExistsError, match='is not overwritten'), atomic_folder(folder, overwrite=False) as path:
        path.mkdir()
    assert names(folder.parent) == ['bag', 'bag/old']


def test_a_folder_that_was_left_aside_is_not_removed_unasked(folder):
    folder.rename(backup_path(folder))
    folder.mkdir()
    with atomic_folder(folder, overwrite=False) as path:
        path.mkdir()
    assert names(folder.parent) == ['.bag.previous', '.bag.previous/old', 'bag']


def test_what_many_killed_writers_left_goes_when_one_of_the_next_begins(tmp_path):
    for _ in range(2):
        partial = PartialFolder(tmp_path / 'state', overwrite=True, many_writers=True)
        partial.begin()
        partial.path.mkdir()
        assert names(partial.path) == []
        (partial.path / 'half').touch()


def test_a_folder_that_many_fill_has_one_name_for_all_of_them(tmp_path):
    mine = PartialFolder(tmp_path / 'state', overwrite=True, many_writers=True)
    mine.begin()
    mine.path.mkdir()
    code = ('import sys; from pathlib import Path; from apt_policy.core.atomic import PartialFolder; '
            "(PartialFolder(Path(sys.argv[1]), overwrite=True, many_writers=True).path / 'theirs').touch()")
    assert run(code, tmp_path / 'state')[0] == 0
    mine.publish()
    mine.discard()
    assert names(tmp_path) == ['state', 'state/theirs']


def test_a_published_file_has_the_rights_of_any_other(tmp_path):
    plain = tmp_path / 'plain'
    plain.touch()
    partial = PartialFile(tmp_path / 'x')
    partial.begin()
    partial.path.touch()
    partial.publish()
    assert os.stat(tmp_path / 'x').st_mode == plain.stat().st_mode
