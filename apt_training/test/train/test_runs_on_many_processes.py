"""Real processes: DDP and DeepSpeed against a single process, resumed runs against whole ones."""

import signal
import sys
import threading
import time

import pytest
import torch
from safetensors.torch import load_file

from apt_training.train.launch import run_processes
from apt_training.train.metrics import read_metrics
from apt_training.train.run_folder import RunFolder

FOUR, TWO = {'iterations': 4}, {'iterations': 2}
TUNED = {'stage': '1', 'vlm_mode': 'full', 'gc': True}


def losses(folder):
    return [record['losses']['total'] for record in read_metrics(folder / 'logs')]


def weights(folder, iteration=4, kind='checkpoint_folder'):
    return load_file(getattr(RunFolder(folder), kind)(iteration) / 'expert.safetensors')


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope='module')
def single(train_here, tmp_path_factory):
    """The oracle: one process, two micro-batches per step."""
    folder = tmp_path_factory.mktemp('single')
    train_here(folder=folder, accumulation=2, **FOUR)
    return folder


@pytest.fixture(scope='module')
def ddp(train_in_processes, tmp_path_factory):
    top = tmp_path_factory.mktemp('ddp')
    status = train_in_processes(
        {'folder': top / 'whole', **FOUR},
        {'folder': top / 'halves', **TWO}, {'folder': top / 'halves', 'resume': True, **FOUR},
        {'folder': top / 'bad', 'bad': [2], **FOUR})
    assert status == 0
    return top


@pytest.fixture(scope='module')
def deepspeed(train_in_processes, tmp_path_factory):
    top = tmp_path_factory.mktemp('deepspeed')
    two, three = {'backend': 'deepspeed'}, {'backend': 'deepspeed', 'zero': 3}
    status = train_in_processes(
        {'folder': top / 'two', **two, **FOUR},
        {'folder': top / 'two_halves', **two, **TWO},
        {'folder': top / 'two_halves', 'resume': True, 'save_every': 1, **two, **FOUR},
        {'folder': top / 'three', 'bad': [4, 5], **three, **FOUR},
        {'folder': top / 'three_halves', 'bad': [4, 5], **three, **TWO},
        {'folder': top / 'three_halves', 'bad': [4, 5], 'resume': True, **three, **FOUR},
        {'folder': top / 'bfloat16', **TUNED, 'precision': 'bfloat16', **two, **TWO})
    assert status == 0
    return top


def test_two_ddp_processes_train_like_one_that_does_the_work_of_both(single, ddp):
    assert losses(ddp / 'whole') == pytest.approx(losses(single), rel=1e-5)
    for key, value in weights(single).items():
        assert torch.allclose(weights(ddp / 'whole')[key], value, atol=1e-4), key


def test_zero_2_trains_like_a_single_process(single, deepspeed):
    assert losses(deepspeed / 'two') == pytest.approx(losses(single), rel=1e-5)


def test_a_whole_vlm_learns_in_bfloat16_on_deepspeed_near_float32_alone(deepspeed, train_here, tmp_path):
    train_here(folder=tmp_path, accumulation=2, **TUNED, **TWO)
    assert losses(deepspeed / 'bfloat16') == pytest.approx(losses(tmp_path), rel=2e-2)
    exact, rough = (load_file(RunFolder(folder).checkpoint_folder(2) / 'vlm.safetensors')
                    for folder in (tmp_path, deepspeed / 'bfloat16'))
    assert exact.keys() == rough.keys()
    moved = 'language_model.layers.0.mlp.up_proj.weight'
    assert torch.allclose(rough[moved].float(), exact[moved], atol=5e-3)


def test_two_and_two_steps_equal_four_on_ddp(ddp):
    assert losses(ddp / 'halves') == losses(ddp / 'whole')
    assert same(weights(ddp / 'halves'), weights(ddp / 'whole'))


def test_two_and_two_steps_equal_four_with_adapters_gradient_checkpointing_and_averaged_weights(train_here, tmp_path):
    averaged = {'ema': True, 'stage': '1', 'vlm_mode': 'lora', 'gc': True}
    train_here(folder=tmp_path / 'whole', **averaged, **FOUR)
    train_here(folder=tmp_path / 'halves', **averaged, **TWO)
    train_here(folder=tmp_path / 'halves', resume=True, **averaged, **FOUR)
    for kind in ('checkpoint_folder', 'ema_folder'):
        assert same(weights(tmp_path / 'halves', kind=kind), weights(tmp_path / 'whole', kind=kind))
    adapters = [load_file(RunFolder(tmp_path / name).checkpoint_folder(4) / 'vlm.safetensors')
                for name in ('whole', 'halves')]
    assert same(*adapters) and all('lora_' in key for key in adapters[0])
    assert any(value.any() for key, value in adapters[0].items() if 'lora_B' in key), 'adapters learn'
    assert not same(weights(tmp_path / 'whole', kind='ema_folder'), weights(tmp_path / 'whole'))


@pytest.mark.parametrize('zero', ['two', 'three'])
def test_two_and_two_steps_equal_four_on_deepspeed(deepspeed, zero):
    assert losses(deepspeed / f'{zero}_halves') == losses(deepspeed / zero)
    assert same(weights(deepspeed / f'{zero}_halves'), weights(deepspeed / zero))


def test_a_batch_without_a_finite_loss_on_one_process_is_skipped_on_all(ddp, deepspeed):
    records = read_metrics(ddp / 'bad' / 'logs')
    assert [record['bad_batches'] for record in records] == [0, 1, 1, 1]
    assert losses(ddp / 'bad')[0] == losses(ddp / 'whole')[0]
    assert all(torch.isfinite(value).all() for value in weights(ddp / 'bad').values())
    assert [record['bad_batches'] for record in read_metrics(deepspeed / 'three' / 'logs')] == [0, 0, 1, 1]


def test_old_checkpoints_go_and_the_last_stay(deepspeed):
    assert RunFolder(deepspeed / 'two_halves').iterations() == [3, 4]


def test_a_run_of_deepspeed_resumes_under_ddp_with_reset_moments_and_a_warning(
        deepspeed, single, train_here, caplog):
    folder = deepspeed / 'two'
    train_here(folder=folder, resume=True, accumulation=2, iterations=5)
    assert 'backend deepspeed -> ddp' in caplog.text and 'its moments are reset' in caplog.text
    assert 'processes 2 -> 1' in caplog.text
    assert losses(folder)[:4] == pytest.approx(losses(single), rel=1e-5) and len(losses(folder)) == 5


def test_a_run_of_two_processes_resumes_with_one_and_keeps_its_optimizer(ddp, train_here, caplog):
    train_here(folder=ddp / 'whole', resume=True, accumulation=2, iterations=6)
    assert 'processes 2 -> 1' in caplog.text and 'are reset' not in caplog.text
    assert len(losses(ddp / 'whole')) == 6


def test_a_signal_saves_and_ends_all_processes_resumable(train_in_processes, tmp_path):
    stop, status = threading.Event(), []
    spec = {'folder': tmp_path / 'run', 'iterations': 10_000, 'slow_s': 0.02}
    runner = threading.Thread(target=lambda: status.append(train_in_processes(spec, stop=stop)))
    runner.start()
    deadline = time.monotonic() + 120
    while not losses(tmp_path / 'run') and time.monotonic() < deadline:
        time.sleep(0.1)
    stop.set()
    runner.join(timeout=120)
    assert status == [75]
    run = RunFolder(tmp_path / 'run')
    assert run.latest_iteration() == len(losses(tmp_path / 'run')) > 0
    assert run.state_folder(run.latest_iteration()).is_dir()


def test_a_stop_before_the_processes_have_started_ends_them_too():
    stop = threading.Event()
    stop.set()
    assert run_processes([sys.executable, '-c', 'import time; time.sleep(250)'], 2, stop) == 128 + signal.SIGTERM


def test_when_a_process_is_killed_the_others_end_and_it_is_named(train_in_processes, tmp_path, caplog, capfd):
    status = train_in_processes({'folder': tmp_path / 'run', 'die_at': 5, 'save_every': 1, **FOUR})
    assert status == 128 + 9
    assert 'Process 1 of 2 was killed by SIGKILL' in caplog.text
    assert 'Lost contact with another rank' in capfd.readouterr().err
    assert RunFolder(tmp_path / 'run').latest_iteration() == 2
