"""State that older versions left goes on, to the same bits: checkpoints, runs, half-done folders, bags, contracts.

What is in ``old_state`` was made by the programs of the commit that its README names. Bits are compared where this
machine computes and draws as the maker's did; elsewhere numbers, within rounding.
"""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from threading import Event

import cv2
import h5py
import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from apt_demos.steps.runner import StepRunner
from apt_demos.study import plan as study
from apt_demos.tutorial import plan as tutorial
from apt_policy.core.contract import contract_to_dict, load_contract
from apt_training.evaluate.main import main as evaluate

OLD = Path(__file__).resolve().parent / 'old_state'
EXPECTED = json.loads((OLD / 'expected.json').read_text())
# A pickle writes no blank before the name.
MODULE = re.compile(rb'apt_[a-z]+\.[a-z_]+')
# Between two machines: poses [m], pictures [grey levels], weights (a tenth of a step of training).
POSES, GREY, WEIGHTS = 1e-6, 4.0, 3e-5


def load_maker():
    spec = importlib.util.spec_from_file_location('old_state_make', OLD / 'make.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = load_maker()


@pytest.fixture(scope='module')
def alike():
    """Whether this machine computes sums, and draws pictures, to the maker's bits."""
    here = make.machine()
    return {kind: here[kind] == EXPECTED['machine'][kind] for kind in here}


@pytest.fixture(scope='module')
def old(tmp_path_factory):
    """Everything unpacked; each test may go on with it once."""
    folder = tmp_path_factory.mktemp('old')
    for archive in sorted(OLD.glob('*.tar.xz')):
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter='data')
    shutil.copytree(OLD / 'contract', folder / 'contract')
    return folder


@pytest.fixture(scope='module')
def run(old):
    """A program in that folder; what it said."""
    def run(*command, status=0):
        # The maker had no GPU, and two processes would want two.
        done = subprocess.run(command, cwd=old, capture_output=True, text=True, timeout=240, check=False,
                              env={**os.environ, 'CUDA_VISIBLE_DEVICES': '', 'OMP_NUM_THREADS': '1', 'COLUMNS': '200'})
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr
    return run


@pytest.fixture(scope='module')
def features(old):
    """Files of the feature cache before anything goes on, and when they were written."""
    return {file: file.stat().st_mtime_ns for file in old.glob('features/**/*.safetensors')}


@pytest.fixture(scope='module')
def resumed(run, old, features):
    """What was said by the run that goes on."""
    return run(*make.TRAIN, 'robot')


@pytest.fixture(scope='module')
def collected(run, old):
    """When the episode that was there was written, and what was said by the collection that goes on."""
    written = (old / 'collection' / 'episode_000000.h5').stat().st_mtime_ns
    return written, run(*make.COLLECT, '--out', 'collection')


@pytest.fixture(scope='module')
def converted(run, old):
    """Likewise of the conversion."""
    written = (old / 'conversion' / 'episode_000000_0000.h5').stat().st_mtime_ns
    return written, run(*make.CONVERT, 'demonstrations/bags', '--out', 'conversion')


@pytest.fixture
def shown(old, tmp_path, monkeypatch):
    """What a checkpoint makes of an episode, as numbers."""
    def shown(checkpoint):
        monkeypatch.chdir(old)
        assert evaluate([*make.EVALUATE[1:], str(tmp_path / 'shown.json'), checkpoint,
                         'demonstrations/episode_000000.h5']) == 0
        return json.loads((tmp_path / 'shown.json').read_text())['overall']
    return shown


def pictures(rows):
    return np.stack([cv2.imdecode(np.asarray(row), cv2.IMREAD_COLOR) for row in rows]).astype(float)


def assert_same_episode(file, recorded):
    """The same words to the letter; numbers but for rounding."""
    with h5py.File(file) as new, h5py.File(recorded) as old:
        assert new.attrs.keys() == old.attrs.keys()
        for name, value in old.attrs.items():
            assert np.array_equal(new.attrs[name], value), name
        names, told = [], []
        new.visit(names.append)
        old.visit(told.append)
        assert names == told
        for name in (name for name in told if isinstance(old[name], h5py.Dataset)):
            coded = name.endswith('/rgb')
            values, were = ((pictures(one[name][:]) if coded else one[name][:]) for one in (new, old))
            np.testing.assert_allclose(values, were, rtol=0, atol=GREY if coded else POSES, err_msg=name)


def same_bits(folder, digests):
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in digests} == digests


def approximately(numbers):
    return {kind: pytest.approx(values, rel=1e-2) for kind, values in numbers.items()}


@pytest.mark.parametrize('checkpoint', ['robot', 'packed'])
def test_an_old_checkpoint_plans_as_it_did(checkpoint, shown, old):
    """Of a run, with a VLM of its own, and packed, with the VLM in a folder beside it."""
    if checkpoint == 'robot':
        # Its run may have gone on since.
        (old / 'at_4').mkdir()
        shutil.copytree(old / 'runs' / 'robot' / 'iter_000004', old / 'at_4' / 'iter_000004')
        (old / 'at_4' / 'latest').write_text('iter_000004\n')
    assert shown('at_4' if checkpoint == 'robot' else checkpoint) == approximately(EXPECTED[checkpoint])


def test_an_interrupted_run_of_two_processes_goes_on_to_the_same_bits(resumed, old, alike):
    assert 'under other conditions' not in resumed and 'start afresh' not in resumed
    ours, whole = (old / 'runs' / name / 'iter_000006' / 'expert.safetensors' for name in ('robot', 'whole'))
    weights, recorded, begun = (load_file(file) for file in (
        ours, whole, old / 'runs' / 'robot' / 'iter_000004' / 'expert.safetensors'))
    assert weights.keys() == recorded.keys()
    moved = max(float((recorded[name] - begun[name]).abs().max()) for name in recorded)
    assert moved > 10 * WEIGHTS, 'it has learned something since'
    for name, value in recorded.items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=WEIGHTS, msg=name)
    lines = (old / 'runs' / 'logs' / 'robot' / 'metrics.jsonl').read_text().splitlines()
    assert [json.loads(line)['losses'] for line in lines] == [
        pytest.approx(losses, rel=1e-3) for losses in EXPECTED['losses']]
    assert not alike['sums'] or ours.read_bytes() == whole.read_bytes()


def test_an_old_feature_cache_is_read_and_nothing_is_added(resumed, old, features):
    assert len(features) > 10
    assert {file: file.stat().st_mtime_ns for file in old.glob('features/**/*.safetensors')} == features
    assert 'is corrupt' not in resumed


def test_a_half_done_collection_goes_on_to_the_same_episodes(collected, old, alike):
    written, said = collected
    assert '1 of 2 episodes are in collection already' in said
    assert (old / 'collection' / 'episode_000000.h5').stat().st_mtime_ns == written, 'what was whole stays'
    for number in range(2):
        name = f'episode_{number:06d}.h5'
        assert_same_episode(old / 'collection' / name, old / 'demonstrations' / name)
    # Bags are left out: the zeros of /tf have another sign since transforms come from the contract's chain.
    digests = {name: digest for name, digest in EXPECTED['collection'].items() if not name.endswith('.mcap')}
    assert digests and (not alike['pictures'] or same_bits(old / 'collection', digests))


def test_a_half_done_conversion_goes_on_to_the_same_bits(converted, old, alike):
    written, _ = converted
    assert (old / 'conversion' / 'episode_000000_0000.h5').stat().st_mtime_ns == written, 'what was whole stays'
    assert_same_episode(old / 'conversion' / 'episode_000001_0000.h5', old / 'converted' / 'episode_000001_0000.h5')
    assert not alike['pictures'] or same_bits(old / 'conversion', EXPECTED['conversion'])


def test_an_old_bag_with_its_own_contract_gives_the_episode_that_it_is_of(run, old):
    bag = 'demonstrations/bags/episode_000000'
    run('apt-convert', bag, '--contract', f'{bag}/contract.yaml', '--out', 'again', '--jobs', '1', '--no-sheet')
    with h5py.File(old / 'again' / 'episode_000000_0000.h5') as new, \
            h5py.File(old / 'demonstrations' / 'episode_000000.h5') as generated:
        assert new.attrs['label_source'] == generated.attrs['label_source'] == 'targets'
        assert new.attrs['prompt_text'] in {value for name, value in generated.attrs.items() if 'prompt' in name}
        for name in ('ee_pose_desired', 'gripper_desired', 'cam_high/pose'):
            np.testing.assert_allclose(new[name], generated[name], rtol=0, atol=POSES, err_msg=name)
        apart = np.abs(pictures(new['cam_high/rgb'][:]) - pictures(generated['cam_high/rgb'][:])).mean()
        assert apart < 2 * GREY, 'two qualities of JPEG'


def test_an_old_episode_is_read(run):
    said = ' '.join(run('apt-inspect', 'demonstrations/episode_000000.h5').split())
    for words in ('pick up the green bar', '43, 4.20 s at 10 Hz', 'commanded end-effector targets',
                  'converter apt-sim-data 5', '32x32 jpeg', 'no warnings'):
        assert words in said


def test_an_old_overlay_is_the_robot_that_it_was():
    """Over the contracts of its time; a field that came since may be there beside those."""
    assert_holds(contract_to_dict(load_contract(OLD / 'contract' / 'robot.yaml')), EXPECTED['contract'])


def test_an_old_overlay_fits_over_the_shipped_contract():
    """By the door at the root, as in a user's checkout."""
    today, was = (load_contract(path) for path in (OLD / 'robot.yaml', OLD / 'contract' / 'robot.yaml'))
    assert today.policy_facts() == was.policy_facts()
    assert (today.name, list(today.arms), list(today.cameras)) == ('aloha_tiny', ['left', 'right'], ['cam_high'])


def assert_holds(found, recorded, where='contract'):
    for key, value in recorded.items():
        assert key in found, f'{where}.{key} is gone'
        if isinstance(value, dict):
            assert_holds(found[key], value, f'{where}.{key}')
        else:
            assert found[key] == value, f'{where}.{key}'


def current_phases(work):
    """Return the phases that correspond to those of ``make.steps_of``, which builds them with the old modules."""
    if work == 'tutorial':
        config = tutorial.TutorialConfig(speed=1.0)
        return [(step,) for step in tutorial.steps(Path('out/tutorial'), Path('config/aloha_tutorial.yaml'), config)]
    setup = study.StudySetup(out=Path('out/study'), contract=Path('config/aloha_small.yaml'),
                             config=replace(study.QUICK, seeds=1))
    return study.steps(setup, jobs=2)


@pytest.mark.parametrize('work', ['tutorial', 'study'])
def test_steps_that_an_old_version_did_are_not_done_again(work, tmp_path, monkeypatch):
    """Whatever their modules were called; a program that does nothing stands in for each."""
    monkeypatch.chdir(tmp_path)
    phases = current_phases(work)
    done = tmp_path / 'out' / work / '.done'
    done.mkdir(parents=True)
    for name, command in json.loads((OLD / 'done.json').read_text())[work].items():
        (done / name).write_text(command)
    console = Console(record=True, width=300, quiet=False)
    for step in (step for phase in phases for step in phase):
        step.output.mkdir(parents=True, exist_ok=True)
    idle = [tuple(replace(step, module='this') for step in phase) for phase in phases]
    assert StepRunner(work, done.parent, console, Event()).run(idle) == 0
    said = console.export_text()
    assert said.count('done before') == sum(map(len, phases)) and '$ ' not in said


def test_no_state_names_a_module_of_ours(resumed, collected, converted, old):
    """Neither the old nor what today's programs wrote beside it: modules move, and a pickle would then be lost."""
    named = {str(file.relative_to(old)): match[0] for file in old.rglob('*')
             if file.is_file() and (match := MODULE.search(file.read_bytes()))}
    assert named == {}
