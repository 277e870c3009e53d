"""``apt-convert`` as it is used: exit status, resuming, killing, full disks."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
import yaml

from apt_policy.core import topics
from apt_policy.core.contract import contract_to_dict
from apt_training.convert.job_runner import RECORDS_FOLDER
from apt_training.convert.main import main
from apt_training.convert.rosbag.reader_backends import ReaderChoice, available_backends
from apt_training.episodes.episode import LabelSource
from apt_training.episodes.read import Episode

DEADLINE_S = 120.0
MARKS = ((0.3, 'begin'), (1.0, 'end'), (1.1, 'begin'), (1.7, 'end'), (1.8, 'begin'), (2.6, 'end'))


@pytest.fixture(scope='session')
def contract_file(contract, tmp_path_factory):
    path = tmp_path_factory.mktemp('contract') / 'robot.yaml'
    path.write_text(yaml.safe_dump(json.loads(json.dumps(contract_to_dict(contract))), sort_keys=False))
    return path


@pytest.fixture(scope='session')
def bag(robot, write_bag, tmp_path_factory):
    """Write a bag with three marked episodes and targets."""
    messages = robot.in_order([*robot.messages(3.0, targets=True),
                               *(robot.word(topics.EPISODE, at, text) for at, text in MARKS)])
    return write_bag(tmp_path_factory.mktemp('bags') / 'session', messages)


@pytest.fixture
def convert(contract_file, tmp_path, capfd):
    """Return a function that runs the command in this process and returns its status and output."""
    def run(*words, out=None, sheet=False):
        flags = [] if sheet else ['--no-sheet']
        status = main([*map(str, words), '--contract', str(contract_file), '--out', str(out or tmp_path / 'out'),
                       '--workers', '1', *flags])
        return status, capfd.readouterr().err
    return run


@pytest.fixture
def start(contract_file, tmp_path):
    """Return a function that starts the command as a process."""
    started = []

    def run(*words, out=None):
        started.append(subprocess.Popen(
            [sys.executable, '-m', 'apt_training.convert.main', *map(str, words), '--contract', str(contract_file),
             '--out', str(out or tmp_path / 'out'), '--no-sheet'], stderr=subprocess.PIPE, text=True,
            start_new_session=True, cwd=Path(__file__).resolve().parents[2]))
        return started[-1]
    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def digests(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob('*'))
            if file.is_file() and file.suffix in ('.h5', '.mp4')}


def wait_for(condition, what):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f'{what} did not happen in {DEADLINE_S:g} s'
        time.sleep(0.005)


def test_a_bag_becomes_a_file_per_episode_with_everything_in_it(convert, bag, robot, tmp_path):
    status, said = convert(bag, sheet=True)
    assert status == 0, said
    files = sorted((tmp_path / 'out').glob('*.h5'))
    assert [file.name for file in files] == [f'session_000{index}.h5' for index in range(3)]
    with Episode(files[0]) as episode:
        facts = episode.facts
        assert (facts.prompts, facts.rate_hz, facts.label_source) == (('pick the cube',), 10.0, LabelSource.TARGETS)
        assert facts.contract == robot.contract.policy_facts() and len(facts.source_hash) == 64
        assert facts.converter_version.startswith('apt-convert') and len(episode) == 7
        view = episode.view('cam_high', 3)
        bright = view.rgb[view.mask].reshape(-1, 3)
        # Red stands left and blue right, through JPEG and back.
        assert view.rgb[16, 4].argmax() == 0 and view.rgb[16, 27].argmax() == 2 and bright.max() > 100
        assert episode.desired_world_from_ee is not None
    assert (tmp_path / 'out' / 'contact_sheet.png').stat().st_size > 10_000
    assert 'session: streams' in said and 'cam_left_wrist' in said


@pytest.mark.parametrize('storage', ['raw', 'jpeg', 'video'])
def test_identical_input_gives_identical_bytes(storage, convert, bag, tmp_path):
    for name in ('one', 'two'):
        assert convert(bag, '--storage', storage, out=tmp_path / name)[0] == 0
    assert digests(tmp_path / 'one') == digests(tmp_path / 'two')
    assert len(digests(tmp_path / 'one')) == (15 if storage == 'video' else 3)


def test_every_reader_that_is_present_gives_the_same_bytes_and_the_report_names_it(convert, bag, tmp_path):
    status, said = convert(bag, out=tmp_path / 'auto')
    names = [reader.name for reader in available_backends(ReaderChoice.AUTO)]
    assert status == 0 and f'session: streams, read by {names[0]}' in said
    for name in names:
        status, said = convert(bag, '--reader', name.removesuffix('_py'), out=tmp_path / name)
        assert status == 0 and f'session: streams, read by {name}' in said
        assert digests(tmp_path / name) == digests(tmp_path / 'auto') and len(digests(tmp_path / name)) == 3


def test_what_one_reader_began_another_may_go_on_with(convert, bag, tmp_path):
    convert(bag)
    (tmp_path / 'out' / 'session_0001.h5').unlink()
    status, _ = convert(bag, '--reader', 'rosbags')
    assert status == 0 and len(digests(tmp_path / 'out')) == 3


def test_a_reader_that_is_not_installed_ends_it_at_once(convert, bag, monkeypatch):
    monkeypatch.setitem(sys.modules, 'rosbag2_py', None)
    status, said = convert(bag, '--reader', 'rosbag2')
    assert status == 2 and '--reader rosbag2 needs rosbag2_py, which cannot be imported' in said


def test_what_is_there_is_not_converted_again_unless_forced(convert, bag, tmp_path):
    convert(bag)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / 'out').glob('*.h5')}
    status, said = convert(bag)
    assert status == 0 and {file: file.stat().st_mtime_ns for file in before} == before
    assert 'session: streams' in said
    status, _ = convert(bag, '--force')
    assert status == 0 and all(file.stat().st_mtime_ns > at for file, at in before.items())


def test_a_missing_episode_is_made_again_and_the_others_stay(convert, bag, tmp_path):
    convert(bag)
    whole = digests(tmp_path / 'out')
    before = (tmp_path / 'out' / 'session_0002.h5').stat().st_mtime_ns
    (tmp_path / 'out' / 'session_0001.h5').unlink()
    assert convert(bag)[0] == 0
    assert digests(tmp_path / 'out') == whole
    assert (tmp_path / 'out' / 'session_0002.h5').stat().st_mtime_ns == before


def test_files_of_other_input_or_other_settings_are_never_mixed_in(convert, bag, robot, write_bag, tmp_path):
    convert(bag)
    before = digests(tmp_path / 'out')
    status, said = convert(bag, '--max-drops', '0.5')
    assert status == 1 and 'session_0000.h5 exists, and was not made from' in said and '--force' in said
    (tmp_path / 'other').mkdir()
    other = write_bag(tmp_path / 'other' / 'session', robot.messages(1.0))
    status, said = convert(other)
    assert status == 1 and f'was not made from {other} with these settings' in said
    assert digests(tmp_path / 'out') == before


def test_bags_of_one_name_are_told_apart_by_their_folders(convert, bag, tmp_path):
    for name in ('monday', 'tuesday'):
        shutil.copytree(bag, tmp_path / name / 'session')
    assert convert(tmp_path / 'monday' / 'session', tmp_path / 'tuesday')[0] == 0
    assert {file.name[:-8] for file in (tmp_path / 'out').glob('*.h5')} == {'monday-session', 'tuesday-session'}


def test_one_bad_bag_does_not_keep_the_others_and_the_status_says_so(convert, bag, tmp_path):
    (tmp_path / 'broken.mcap').write_bytes(b'nothing of the kind')
    status, said = convert(tmp_path / 'broken.mcap', bag)
    assert status == 1 and f'error: {tmp_path / "broken.mcap"} cannot be read at all' in said
    assert len(list((tmp_path / 'out').glob('*.h5'))) == 3


def test_a_truncated_bag_yields_its_whole_episodes_and_an_error_with_file_and_offset(convert, bag, tmp_path):
    cut = tmp_path / 'session'
    shutil.copytree(bag, cut)
    file = cut / 'session.mcap'
    with file.open('r+b') as handle:
        handle.truncate(file.stat().st_size * 7 // 10)
    for _ in range(2):
        status, said = convert(cut)
        assert status == 1
        assert f'error: {file} cannot be read beyond byte ' in said and 'truncated' in said
    assert 'left out: ' in said and 'episode 2: it began at 1.800 s' in said
    convert(bag, out=tmp_path / 'whole')
    whole = digests(tmp_path / 'whole')
    assert digests(tmp_path / 'out') == {name: whole[name] for name in ('session_0000.h5', 'session_0001.h5')}


@pytest.mark.parametrize(('words', 'said'), [
    (('--contract', 'nowhere.yaml'), 'cannot read contract nowhere.yaml'),
    (('--stamp-on-receipt', 'cam_left'),
     "--stamp-on-receipt has 'cam_left', expected names of the contract: cam_high, cam_low"),
    (('--cameras', 'cam_low'), "--cameras cam_low has no reference camera of arm 'left': add one of"),
    (('--reference', 'top'), "--reference has 'top', expected names of the contract"),
    (('--max-drops', '2'), 'max_drops is 2.0, expected 0 to 1')])
def test_flags_that_cannot_be_used_end_it_at_once_with_status_2(words, said, bag, tmp_path, contract_file, capfd):
    fixed = () if '--contract' in words else ('--contract', str(contract_file))
    assert main([str(bag), '--out', str(tmp_path / 'out'), *words, *fixed]) == 2
    assert said in ' '.join(capfd.readouterr().err.split())
    assert not list(tmp_path.glob('out/*.h5'))


def test_an_input_that_is_not_there_ends_it_at_once(convert, tmp_path):
    status, said = convert(tmp_path / 'nowhere')
    assert status == 2 and 'nowhere does not exist, expected a rosbag2 folder' in said


def test_a_conversion_that_gives_no_episode_fails(convert, robot, write_bag, tmp_path):
    quiet = write_bag(tmp_path / 'quiet', robot.messages(1.0))
    status, said = convert(quiet, '--split-by', 'marks')
    assert status == 1 and 'the bag has no marks' in said


def test_two_processes_give_what_one_gives(bag, robot, write_bag, start, convert, tmp_path):
    other = write_bag(tmp_path / 'other', robot.messages(1.5))
    process = start(bag, other, '--workers', '2', out=tmp_path / 'two')
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, said
    assert convert(bag, other, out=tmp_path / 'one')[0] == 0
    assert digests(tmp_path / 'two') == digests(tmp_path / 'one')
    assert len(digests(tmp_path / 'one')) == 4


@pytest.fixture(scope='session')
def long_bag(robot, write_bag, tmp_path_factory):
    """Write a bag with many episodes, long enough to be interrupted."""
    messages = robot.messages(40.0)
    marks = [robot.word(topics.EPISODE, at + offset, text) for at in range(40)
             for offset, text in ((0.1, 'begin'), (0.9, 'end'))]
    return write_bag(tmp_path_factory.mktemp('long') / 'long', robot.in_order([*messages, *marks]))


def test_after_kill_9_in_the_middle_it_resumes_and_ends_with_the_same_bytes(long_bag, start, convert, tmp_path):
    process = start(long_bag, '--workers', '1')
    out = tmp_path / 'out'
    wait_for(lambda: len(list(out.glob('*.h5'))) >= 3, 'the first episodes')
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = digests(out)
    assert 3 <= len(kept) < 40
    for file in out.glob('*.h5'):
        with h5py.File(file):
            pass
    before = {name: (out / name).stat().st_mtime_ns for name in kept}
    assert convert(long_bag)[0] == 0
    assert convert(long_bag, out=tmp_path / 'fresh')[0] == 0
    assert digests(out) == digests(tmp_path / 'fresh') and len(digests(out)) == 40
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == before
    assert not list(out.glob('.*.partial'))


def kill_who_reads(process, bag, out):
    """Kill the process that converts a bag, in the middle of it."""
    def victims():
        return [child for child in psutil.Process(process.pid).children(recursive=True) if reads(child)]

    def reads(child):
        try:
            return any(str(file.path).endswith(f'{bag.name}.mcap') for file in child.open_files())
        except psutil.Error:
            return False

    there = len(list(out.glob(f'{bag.name}_*.h5')))
    wait_for(lambda: len(list(out.glob(f'{bag.name}_*.h5'))) >= there + 2 and len(victims()) == 1,
             'the next episodes of the long bag')
    victims()[0].kill()


def test_the_bag_of_a_killed_process_is_gone_on_with_by_another(long_bag, bag, start, convert, tmp_path):
    process = start(long_bag, bag, '--workers', '2')
    kill_who_reads(process, long_bag, tmp_path / 'out')
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, said
    assert convert(long_bag, bag, out=tmp_path / 'one')[0] == 0
    assert digests(tmp_path / 'out') == digests(tmp_path / 'one') and len(digests(tmp_path / 'one')) == 43
    assert not list((tmp_path / 'out').glob('.*.partial'))


def test_a_job_that_is_killed_again_costs_its_bag_only_and_is_named(long_bag, bag, robot, write_bag, start, convert,
                                                                    tmp_path):
    other = write_bag(tmp_path / 'other', robot.messages(1.5))
    process = start(long_bag, bag, other, '--workers', '2')
    out = tmp_path / 'out'
    for _ in range(2):
        kill_who_reads(process, long_bag, out)
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert (f'error: {long_bag}: its process was killed by signal 9 (SIGKILL), 2 times; its complete episodes are kept'
            in said)
    names = set(digests(out))
    assert {'session_0000.h5', 'session_0001.h5', 'session_0002.h5', 'other_0000.h5'} <= names
    assert convert(long_bag)[0] == 0
    assert len(list(out.glob('long_*.h5'))) == 40


@pytest.mark.parametrize(('which', 'jobs'), [(signal.SIGINT, '1'), (signal.SIGTERM, '2')])
def test_an_interrupt_keeps_whole_episodes_and_says_how_to_go_on(which, jobs, long_bag, bag, start, tmp_path):
    process = start(long_bag, bag, '--workers', jobs)
    out = tmp_path / 'out'
    wait_for(lambda: len(list(out.glob('long_*.h5'))) >= 2, 'the first episodes')
    # As a terminal does: the whole group hears it.
    os.killpg(process.pid, which) if which is signal.SIGINT else process.send_signal(which)
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert 'interrupted; whole episodes are kept, and the same command resumes' in said
    assert 'Traceback' not in said
    assert not list(out.glob('.*.partial'))
    assert 2 <= len(list(out.glob('long_*.h5'))) < 40
    for file in out.glob('*.h5'):
        Episode(file).check()


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of a few megabytes."""
    mount = tmp_path / 'small'
    mount.mkdir()
    if shutil.which('mount') is None:
        pytest.skip('a small file system cannot be mounted here: there is no mount')
    done = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', str(mount)], capture_output=True,
                          text=True, check=False)
    if done.returncode:
        pytest.skip(f'a small file system cannot be mounted here: {done.stderr.strip()}')
    yield mount
    subprocess.run(['umount', '-l', str(mount)], check=True)


@pytest.mark.parametrize('storage', ['jpeg', 'raw', 'video'])
def test_a_full_disk_is_an_error_that_keeps_what_was_whole(storage, small_disk, long_bag, start, convert, tmp_path):
    out = small_disk / 'out'
    process = start(long_bag, '--workers', '1', '--storage', storage, out=out)
    _, said = process.communicate(timeout=DEADLINE_S)
    text = ' '.join(said.split())
    assert process.returncode == 1, said
    assert 'the disk is full' in text and str(long_bag) in text and str(out) in text and 'Traceback' not in said
    there = sorted(out.glob('*.h5'))
    assert there and not list(out.glob('.*.partial'))
    for file in there:
        Episode(file).check()
    roomy = tmp_path / 'roomy'
    shutil.copytree(out, roomy)
    assert convert(long_bag, '--storage', storage, out=roomy)[0] == 0
    assert len(list(roomy.glob('*.h5'))) == 40


def test_a_corrupt_record_is_no_reason_to_lose_anything(convert, bag, tmp_path):
    convert(bag)
    record = tmp_path / 'out' / RECORDS_FOLDER / 'session.json'
    record.write_text('{')
    status, said = convert(bag)
    assert status == 1 and '--force' in said and len(digests(tmp_path / 'out')) == 3
    assert convert(bag, '--force')[0] == 0


def test_ray_spreads_the_bags_and_gives_the_same_bytes(bag, robot, write_bag, start, convert, tmp_path):
    other = write_bag(tmp_path / 'other', robot.messages(1.5))
    (tmp_path / 'broken.mcap').write_bytes(b'nothing of the kind')
    process = start(bag, other, tmp_path / 'broken.mcap', '--executor', 'ray', '--workers', '2', out=tmp_path / 'ray')
    _, said = process.communicate(timeout=2 * DEADLINE_S)
    assert process.returncode == 1 and 'broken.mcap cannot be read at all' in said, said
    assert convert(bag, other, out=tmp_path / 'one')[0] == 0
    assert digests(tmp_path / 'ray') == digests(tmp_path / 'one')


def test_a_frozen_camera_and_a_dropped_stream_are_in_the_table(convert, robot, write_bag, tmp_path):
    topic = 'cam_low/camera/color/image_rect_raw'
    messages = robot.without(robot.altered(robot.messages(3.0), topic, lambda one: replace(
        robot.image('cam_low', robot.start_ns, 1.0), header=one.header), 1.5), topic, 1.0, 1.4)
    status, said = convert(write_bag(tmp_path / 'bag', messages))
    assert status == 0
    row = next(line for line in said.splitlines() if line.strip('│ ').startswith('cam_low'))
    cells = [cell.strip() for cell in row.strip('│ ').split('│')]
    assert int(cells[-3]) > 0 and int(cells[-2]) == 14 and cells[-1] == 'header'
    assert np.isfinite(float(cells[5].removesuffix(' ms')))
