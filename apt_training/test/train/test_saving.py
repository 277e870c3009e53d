"""Checkpoints on a disk that fills, folders that were damaged, and what is kept."""

import json
import shutil
import subprocess

import pytest
import torch
from safetensors.torch import load_file

from apt_policy.model.checkpoint import CheckpointError, read_checkpoint
from apt_training.train.backends import StateError, TorchBackend
from apt_training.train.config import ConfigError, KeepConfig
from apt_training.train.objective import Objective
from apt_training.train.saving import RunFolder, SaveError, require_space
from apt_training.train.snapshot import Progress, Snapshots
from apt_training.train.start import fresh_policy

MEGABYTE = 1_000_000


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 60 MB."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    made = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=60m', 'tmpfs', str(folder)], capture_output=True,
                          text=True, check=False)
    if made.returncode:
        pytest.skip(f'this user may not mount a small disk: {made.stderr.strip()}')
    yield folder
    subprocess.run(['umount', str(folder)], check=True)


@pytest.fixture
def saver(invented, alone):
    """Saves a small policy to a folder, at an iteration; with or without looking at the free space first."""
    config = invented.config_of({'iterations': 9})
    policy = fresh_policy(config, torch.device('cpu'))
    backend = TorchBackend(Objective(policy), config, alone)

    class Blind(Snapshots):
        bytes_needed = 0

    def save(folder, iteration, kind=Blind):
        snapshots = kind(RunFolder(folder), config, alone, policy=policy, contract=invented.FACTS)
        feed = invented.InventedFeed(0, 1, 2, bad=set(), slow_s=0, die_at=-1)
        snapshots.save(backend, feed, Progress(iteration=iteration), None)
    return save


def test_a_full_disk_keeps_the_last_good_checkpoint(small_disk, saver):
    folder = small_disk / 'run'
    saver(folder, 1)
    expected = load_file(folder / 'iter_000001' / 'expert.safetensors')
    (small_disk / 'ballast').write_bytes(bytes(shutil.disk_usage(small_disk).free - MEGABYTE))
    with pytest.raises(SaveError, match=r'(?s)could not be written.*iter_000001 is kept. Make room'):
        saver(folder, 2)
    assert RunFolder(folder).latest() == 1
    assert not list(folder.glob('.*.partial')) and not (folder / 'iter_000002').exists()
    read = read_checkpoint(folder / 'iter_000001')
    assert all(torch.equal(read.weights[key], value) for key, value in expected.items())
    (small_disk / 'ballast').unlink()
    saver(folder, 2)
    assert RunFolder(folder).latest() == 2


def test_what_cannot_fit_is_not_begun(small_disk, saver):
    (small_disk / 'ballast').write_bytes(bytes(shutil.disk_usage(small_disk).free - MEGABYTE))
    with pytest.raises(SaveError, match=r'a checkpoint needs [\d.]+ MB, .* has 1.0 MB left; make room'):
        saver(small_disk / 'run', 1, Snapshots)
    assert not (small_disk / 'run').exists()


def test_the_last_checkpoints_and_milestones_are_kept_and_state_of_the_last_only(tmp_path):
    run = RunFolder(tmp_path)
    for iteration in (10, 20, 30, 40, 50):
        run.checkpoint(iteration).mkdir()
        run.state(iteration).mkdir()
    run.point_to(50)
    run.tidy(KeepConfig(every=10, last=2, milestone_every=20))
    assert run.iterations() == [20, 40, 50]
    assert [run.state(i).exists() for i in (20, 40, 50)] == [False, True, True]


def test_a_checkpoint_that_was_never_pointed_to_is_not_counted_as_last(tmp_path, train_here):
    train_here(folder=tmp_path, iterations=2)
    shutil.copytree(tmp_path / 'iter_000002', tmp_path / 'iter_000009')
    train_here(folder=tmp_path, iterations=3, resume=True)
    assert RunFolder(tmp_path).latest() == 3


@pytest.mark.parametrize('text', ['', 'iter_000007\n', 'last one'])
def test_a_damaged_pointer_says_what_there_is(tmp_path, text):
    (tmp_path / 'iter_000003').mkdir()
    (tmp_path / 'latest').write_text(text)
    with pytest.raises(SaveError, match='there is no such checkpoint; write the name of one of 3'):
        RunFolder(tmp_path).latest()


def test_a_run_is_not_gone_on_with_unless_asked(tmp_path, train_here):
    train_here(folder=tmp_path, iterations=1)
    with pytest.raises(ConfigError, match='holds a run at iteration 1; go on with --va-conti'):
        train_here(folder=tmp_path, iterations=2)


@pytest.mark.parametrize(('file', 'content', 'error', 'message'), [
    ('state_000001/training.json', b'{', StateError, 'training.json cannot be read'),
    ('state_000001/training.json', b'{"format": "something/9"}', StateError,
     "has format 'something/9', expected 'apt-training-state/1'; .* version of .* wrote it, .* --pretrained-ckpt"),
    ('state_000001/optimizer.pt', b'junk', StateError, 'optimizer state in .* cannot be taken up'),
    ('iter_000001/expert.safetensors', b'junk', CheckpointError, 'iter_000001 is corrupt')])
def test_damaged_state_is_named(tmp_path, train_here, file, content, error, message):
    train_here(folder=tmp_path, iterations=1)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(error, match=message):
        train_here(folder=tmp_path, iterations=2, resume=True)


def test_space_is_asked_of_the_disk_that_a_folder_will_be_on(tmp_path):
    require_space(tmp_path / 'not' / 'yet', 1)
    with pytest.raises(SaveError, match='make room, or choose another --ckpt_dir'):
        require_space(tmp_path / 'not' / 'yet', 10**18)


def test_a_run_writes_its_recipe_down_and_the_newest_one_stays(tmp_path, train_here):
    for iterations in (1, 2):
        train_here(folder=tmp_path, iterations=iterations, resume=True)
        recipe = json.loads((tmp_path / 'recipe.json').read_text())
        assert (recipe['iterations'], recipe['stage'], recipe['vlm']['name']) == (iterations, 'va_prior', 'tiny')
