"""``make gpu``: at tiny size on the CPU it does everything that it does on a GPU; without a GPU it says so."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from apt_policy.model.actions import ACTION_SIZE
from apt_policy.model.batch import move
from apt_policy.model.observation import blank_observation, encode_images, encode_robot_state, reference_candidates

# Twenty seconds of work, of which a busy machine makes minutes.
pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).resolve().parents[1]
PARTS = ('prepare', 'VLM', 'observe', 'denoise', 'finish')
# What a machine that has torch need not have.
WITHOUT = ('rclpy', 'ament_index_python', 'apt_msgs', 'rosbags', 'mujoco', 'mink', 'apt_bringup', 'apt_training')
PROGRAM = (f'import runpy, sys; sys.modules.update(dict.fromkeys({WITHOUT})); '
           "sys.path[:0] = ['benchmarks', 'apt_policy']; runpy.run_path('benchmarks/gpu.py', run_name='__main__')")


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / 'benchmarks' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def ran(tmp_path_factory):
    """The program on the CPU with two plans of each size: what it printed and what it wrote."""
    out = tmp_path_factory.mktemp('gpu') / 'folder' / 'gpu.json'
    bare = {name: value for name, value in os.environ.items() if name not in ('PYTHONPATH', 'AMENT_PREFIX_PATH')}
    ran = subprocess.run([sys.executable, '-c', PROGRAM, '--device', 'cpu', '--runs', '2', '--out', out], cwd=ROOT,
                         env={**bare, 'OMP_NUM_THREADS': '1'}, capture_output=True, text=True, timeout=580, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout, json.loads(out.read_text())


def test_both_precisions_and_all_golden_files_are_held_to_their_tolerances(ran):
    text, report = ran
    files = {path.stem for path in (ROOT / 'apt_policy/test/golden').glob('*.npz')}
    assert {(line['file'], line['precision']) for line in report['golden']} == {
        (file, precision) for file in files for precision in ('float32', 'bfloat16')}
    assert all(line['share'] <= line['tolerance'] for line in report['golden'])
    assert text.count('denoised_action') == 2 * len(files) and 'DIFFERS' not in text


def test_the_parts_of_a_plan_add_up_and_steps_to_the_denoising(ran):
    _, report = ran
    found = {(line['size'], line['precision']) for line in report['latency']}
    assert found == {(size, precision) for size in ('aloha_small', 'tiny') for precision in ('float32', 'bfloat16')}
    for size, precision in found:
        lines = {line['part']: line for line in report['latency']
                 if (line['size'], line['precision']) == (size, precision)}
        assert set(lines) == {*PARTS, 'step', 'plan'}
        assert sum(lines[part]['mean_ms'] for part in PARTS) == pytest.approx(lines['plan']['mean_ms'])
        # What is left is the room that is made behind the cached keys.
        assert 0.5 < report['steps'] * lines['step']['mean_ms'] / lines['denoise']['mean_ms'] <= 1.0
        assert all(line['p50_ms'] <= line['p95_ms'] for line in lines.values())


def test_a_floor_is_the_slower_of_bytes_and_operations(ran):
    _, report = ran
    for line in report['latency']:
        if 'floor_ms' in line:
            roofs = report['roofs'][line['precision']]
            by = {'bytes': line['megabytes'] * 1e9 / roofs['bytes_per_s'],
                  'flops': line['gflop'] * 1e12 / roofs['flops_per_s']}
            assert line['floor_ms'] == pytest.approx(max(by.values())) == by[line['bound']]
            assert line['gflop'] > 0 and line['megabytes'] > 0
    half, whole = (next(line['megabytes'] for line in report['latency'] if (
        line['size'], line['part'], line['precision']) == ('tiny', 'step', precision))
        for precision in ('bfloat16', 'float32'))
    assert half == pytest.approx(whole / 2, rel=0.01), 'half the bytes'


def test_the_table_and_the_memory_of_every_size_are_printed(ran):
    text, report = ran
    rows = [line for line in text.splitlines() if line.startswith(('aloha_small', 'tiny'))]
    assert len(rows) == len(report['latency']) + len(report['memory'])
    assert all(line['weights_mb'] > 1 and line['peak_mb'] is None for line in report['memory'])


def test_the_shipped_checkpoint_is_the_simulators():
    models = load('gpu_models')
    assert [path.name for path in models._checkpoint('aloha_small').iterdir() if path.name == 'checkpoint.json']


def test_the_work_of_a_step_is_that_of_its_products(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    models, floors = load('gpu_models'), load('gpu_floors')
    policy, contract = models.build(models.SIZES['tiny'], torch.device('cpu'), 'float32')
    observation = replace(blank_observation(contract), prompt='pick')
    images = encode_images(observation)
    state = encode_robot_state(observation, images.camera_valid, reference_candidates(contract))
    robot = move(state, torch.device('cpu'))
    noise = torch.zeros(1, len(contract.arms), contract.horizon, ACTION_SIZE)
    step = floors.count_work(policy, images, robot, noise)['step']
    # By hand, for each block: queries, keys and values 3 D^2, the way out D^2, the feed-forward layer 6 D^2; and each
    # row against all columns, once for the weights and once for the values.
    context = policy.expert.observe(policy.vlm(images), robot, horizon=contract.horizon)
    width, rows = policy.expert.config.width, len(contract.arms) * (contract.history + contract.horizon)
    columns = [memory.keys.shape[2] + rows for memory in context.kv_caches]
    products = 2 * sum(rows * 10 * width ** 2 + 2 * rows * seen * width for seen in columns)
    assert step.flops == pytest.approx(products, rel=0.08), 'embedding the actions and reading them out is the rest'
    weights = 4 * len(columns) * 10 * width ** 2
    cached = sum(2 * memory.keys.numel() * 4 for memory in context.kv_caches)
    assert step.bytes == pytest.approx(weights + cached, rel=0.08)


def test_without_a_gpu_make_gpu_says_what_is_needed_and_builds_nothing():
    command = ['make', '--no-print-directory', 'gpu', f'PYTHON={sys.executable}']
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True,
                         env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''}, timeout=500, check=False)
    said = [line for line in ran.stderr.splitlines() if not line.startswith('make')]
    assert ran.returncode == 2 and not ran.stdout
    assert len(said) == 1 and 'finds no GPU. Needed are an NVIDIA GPU' in said[0] and '--device cpu' in said[0]
