"""Checkpoints on a full disk, damaged folders, and pruning."""

import json
import shutil
import subprocess

import pytest
import torch
from safetensors.torch import load_file

from apt_policy.model.checkpoint import CheckpointError, read_checkpoint
from apt_training.train.backends import TorchBackend, TrainingStateError
from apt_training.train.checkpoint_manager import CheckpointManager, TrainingProgress
from apt_training.train.config import CheckpointConfig, ConfigError
from apt_training.train.initialize import build_new_policy
from apt_training.train.objective import Objective
from apt_training.train.run_folder import RunFolder, SaveError, check_free_space

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
def saver(synthetic, alone):
    """Saves a small policy to a folder, at an iteration; with or without looking at the free space first."""
    config = synthetic.make_config({'iterations': 9})
    policy = build_new_policy(config, torch.device('cpu'))
    backend = TorchBackend(Objective(policy), config, alone)

    class Blind(CheckpointManager):
        bytes_needed = 0

    def save(folder, iteration, kind=Blind):
        checkpoints = kind(RunFolder(folder), config, alone, policy=policy, contract=synthetic.FACTS)
        batches = synthetic.SyntheticBatches(0, 1, 2, bad=set(), slow_s=0, die_at=-1)
        checkpoints.save(backend, batches, TrainingProgress(iteration=iteration), None)
    return save


def test_a_full_disk_keeps_the_last_good_checkpoint(small_disk, saver):
    folder = small_disk / 'run'
    saver(folder, 1)
    expected = load_file(folder / 'iter_000001' / 'expert.safetensors')
    (small_disk / 'ballast').write_bytes(bytes(shutil.disk_usage(small_disk).free - MEGABYTE))
    with pytest.raises(SaveError, match=r'(?s)could not be written.*iter_000001 is kept. Free some space'):
        saver(folder, 2)
    assert RunFolder(folder).latest_iteration() == 1
    assert not list(folder.glob('.*.partial')) and not (folder / 'iter_000002').exists()
    read = read_checkpoint(folder / 'iter_000001')
    assert all(torch.equal(read.weights[key], value) for key, value in expected.items())
    (small_disk / 'ballast').unlink()
    saver(folder, 2)
    assert RunFolder(folder).latest_iteration() == 2


def test_a_checkpoint_that_cannot_fit_is_not_begun(small_disk, saver):
    (small_disk / 'ballast').write_bytes(bytes(shutil.disk_usage(small_disk).free - MEGABYTE))
    with pytest.raises(SaveError, match=r'a checkpoint needs [\d.]+ MB, .* has 1.0 MB left; free some space'):
        saver(small_disk / 'run', 1, CheckpointManager)
    assert not (small_disk / 'run').exists()


def test_the_last_checkpoints_and_milestones_are_kept_and_state_of_the_last_only(tmp_path):
    run = RunFolder(tmp_path)
    for iteration in (10, 20, 30, 40, 50):
        run.checkpoint_folder(iteration).mkdir()
        run.state_folder(iteration).mkdir()
    run.set_latest(50)
    run.prune(CheckpointConfig(interval=10, keep_latest=2, milestone_interval=20))
    assert run.iterations() == [20, 40, 50]
    assert [run.state_folder(i).exists() for i in (20, 40, 50)] == [False, True, True]


def test_a_checkpoint_that_was_never_pointed_to_is_not_counted_as_last(tmp_path, train_here):
    train_here(folder=tmp_path, iterations=2)
    shutil.copytree(tmp_path / 'iter_000002', tmp_path / 'iter_000009')
    train_here(folder=tmp_path, iterations=3, resume=True)
    assert RunFolder(tmp_path).latest_iteration() == 3


@pytest.mark.parametrize('text', ['', 'iter_000007\n', 'last one'])
def test_a_damaged_pointer_lists_the_checkpoints(tmp_path, text):
    (tmp_path / 'iter_000003').mkdir()
    (tmp_path / 'latest').write_text(text)
    with pytest.raises(SaveError, match='there is no such checkpoint; write one of 3 as iter_NNNNNN'):
        RunFolder(tmp_path).latest_iteration()


def test_a_run_is_not_resumed_unless_requested(tmp_path, train_here):
    train_here(folder=tmp_path, iterations=1)
    with pytest.raises(ConfigError, match='holds a run at iteration 1; resume it with --va-conti'):
        train_here(folder=tmp_path, iterations=2)


@pytest.mark.parametrize(('file', 'content', 'error', 'message'), [
    ('state_000001/training.json', b'{', TrainingStateError, 'cannot read .*training.json'),
    ('state_000001/training.json', b'{"format": "something/9"}', TrainingStateError,
     "has format 'something/9', expected 'apt-training-state/1'; .* version of .* wrote it, .* --pretrained-ckpt"),
    ('state_000001/optimizer.pt', b'junk', TrainingStateError, 'cannot load the optimizer state in .*optimizer.pt'),
    ('iter_000001/expert.safetensors', b'junk', CheckpointError, 'iter_000001 is corrupt')])
def test_damaged_state_is_named(tmp_path, train_here, file, content, error, message):
    train_here(folder=tmp_path, iterations=1)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(error, match=message):
        train_here(folder=tmp_path, iterations=2, resume=True)


def test_the_free_space_is_that_of_the_disk_of_a_future_folder(tmp_path):
    check_free_space(tmp_path / 'not' / 'yet', 1)
    with pytest.raises(SaveError, match='free some space, or choose another --ckpt_dir'):
        check_free_space(tmp_path / 'not' / 'yet', 10**18)


def test_a_run_writes_its_recipe_and_the_newest_one_stays(tmp_path, train_here):
    for iterations in (1, 2):
        train_here(folder=tmp_path, iterations=iterations, resume=True)
        recipe = json.loads((tmp_path / 'recipe.json').read_text())
        assert (recipe['iterations'], recipe['stage'], recipe['vlm']['name']) == (iterations, 'va_prior', 'tiny')
        assert recipe['keep'] == {'every': 100, 'last': 2, 'milestone_every': 0}, 'keys of the published format'
        assert (recipe['batch'], recipe['accumulation'], recipe['draws']) == (2, 1, 1)
