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
    previous_of,
    remove_rests_of,
    write_text,
)

OTHER_PID = 2**22 + 1
"""No process has it: it is beyond the kernel's limit."""
OF_FILE = """
import os, signal, sys
from pathlib import Path
from apt_policy.core.atomic import atomic_file
with atomic_file(Path(sys.argv[1]), overwrite=True) as path:
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
    write_text(Path(sys.argv[1]), 'x' * 200_000, overwrite=True)
except OSError as error:
    raise SystemExit(error.errno)
"""


def run(code, target):
    """Exit status of a process that writes ``target``, and its number."""
    process = subprocess.Popen([sys.executable, '-c', code, str(target)])
    return process.wait(60), process.pid


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*'))


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
    with atomic_file(file, overwrite=True) as path:
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
    write_text(tmp_path / 'latest', 'iter_7\n', overwrite=False, durable=durable)
    assert (tmp_path / 'latest').read_text() == 'iter_7\n' and names(tmp_path) == ['latest']


def fail_in_a_file(target):
    with atomic_file(target, overwrite=True) as path:
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
    with pytest.raises(FileNotFoundError), atomic_file(file, overwrite=True):
        pass
    with pytest.raises(FileNotFoundError), atomic_folder(folder, overwrite=True):
        pass
    assert names(file.parent) == ['bag', 'bag/old', 'notes.json'] and file.read_text() == 'old'


def test_what_is_there_is_not_written_over_unasked(file, folder):
    with pytest.raises(FileExistsError, match=r'not written over; choose another name.*notes\.json'):
        write_text(file, 'new', overwrite=False)
    with pytest.raises(FileExistsError, match=r'not written over'), atomic_folder(folder, overwrite=False) as path:
        path.mkdir()
    assert file.read_text() == 'old' and names(file.parent) == ['bag', 'bag/old', 'notes.json']


def come_second_with_a_file(target):
    with atomic_file(target, overwrite=False) as path:
        path.write_text('mine')
        target.write_text('theirs')


def come_second_with_a_folder(target):
    with atomic_folder(target, overwrite=False) as path:
        path.mkdir()
        target.mkdir()
        (target / 'theirs').touch()


def test_what_another_one_put_there_meanwhile_is_not_written_over(tmp_path):
    with pytest.raises(FileExistsError):
        come_second_with_a_file(tmp_path / 'file')
    with pytest.raises(FileExistsError):
        come_second_with_a_folder(tmp_path / 'folder')
    assert (tmp_path / 'file').read_text() == 'theirs' and names(tmp_path) == ['file', 'folder', 'folder/theirs']


def test_an_empty_folder_gives_way(tmp_path):
    (tmp_path / 'out').mkdir()
    with atomic_folder(tmp_path / 'out', overwrite=False) as path:
        path.mkdir()
        (path / 'new').touch()
    assert names(tmp_path) == ['out', 'out/new']


def test_kill_leaves_the_old_file_whole_and_the_next_writer_tidies_up(file):
    status, pid = run(OF_FILE, file)
    assert status == -signal.SIGKILL
    assert file.read_text() == 'old' and names(file.parent) == [f'.notes.json.{pid}.partial', 'notes.json']
    write_text(file, 'new', overwrite=True)
    assert file.read_text() == 'new' and names(file.parent) == ['notes.json']


def test_kill_leaves_the_old_folder_whole_and_the_next_writer_tidies_up(folder):
    status, pid = run(OF_FOLDER, folder)
    assert status == -signal.SIGKILL
    assert names(folder) == ['old'] and (folder.parent / f'.bag.{pid}.partial' / 'bag' / 'half').exists()
    with atomic_folder(folder, overwrite=True) as path:
        path.mkdir()
    assert names(folder.parent) == ['bag']


def test_a_full_disk_leaves_the_old_file_and_nothing_else(file):
    status, _ = run(ON_A_FULL_DISK, file)
    assert status in (errno.EFBIG, errno.ENOSPC)
    assert file.read_text() == 'old' and names(file.parent) == ['notes.json']


def test_only_rests_of_the_same_target_are_removed(file):
    kept = ['.notes.json.bak.7.partial', '.notes.json.partial.txt', '.notesxjson.7.partial', '.other.7.partial']
    gone = ['.notes.json.7.partial', '.notes.json.8.7.partial', '.notes.json.partial']
    for name in (*kept, *gone):
        (file.parent / name).touch()
    write_text(file, 'new', overwrite=True)
    assert names(file.parent) == sorted([*kept, 'notes.json'])


def test_where_many_write_the_same_nobody_removes_what_another_one_has_begun(file):
    begun = file.parent / f'.notes.json.{OTHER_PID}.partial'
    begun.touch()
    write_text(file, 'new', overwrite=True, shared=True)
    assert begun.exists() and file.read_text() == 'new'


def test_threads_that_write_the_same_target_do_not_meet(tmp_path):
    both, failures = threading.Barrier(2, timeout=30), []

    def write(text):
        try:
            with atomic_file(tmp_path / 'x', overwrite=True, shared=True) as path:
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
    for name in (f'.a.h5.{OTHER_PID}.partial', f'.b.5.{OTHER_PID}.partial', '.c.5.partial', 'd'):
        (tmp_path / name).touch()
    (tmp_path / f'.bag.{OTHER_PID}.partial' / 'bag').mkdir(parents=True)
    remove_rests_of(OTHER_PID, tmp_path)
    assert names(tmp_path) == ['.c.5.partial', 'd']


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(folder):
    partial = PartialFolder(folder, overwrite=True)
    partial.begin()
    with pytest.raises(FileNotFoundError):
        partial.publish()
    partial.discard()
    assert names(folder.parent) == ['bag', 'bag/old']


def test_an_older_folder_that_was_left_aside_goes_when_the_newer_one_is_in_place(folder):
    """As after a loss of power between two renamings."""
    folder.rename(previous_of(folder))
    with atomic_folder(folder, overwrite=True) as path:
        path.mkdir()
    assert names(folder.parent) == ['bag']


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
    partial = PartialFile(tmp_path / 'x', overwrite=False)
    partial.begin()
    partial.path.touch()
    partial.publish()
    assert os.stat(tmp_path / 'x').st_mode == plain.stat().st_mode
