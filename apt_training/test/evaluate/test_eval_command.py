import json
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from apt_policy.model.checkpoint import read_checkpoint, save_checkpoint
from apt_policy.model.config import TrainingStage
from apt_policy.model.restore import save_policy
from apt_training.evaluate.main import main

QUICK = ['--frames', '2', '--samples', '2', '--device', 'cpu']


def error_text(capsys):
    """Text on stderr, checked to be a message and no traceback."""
    text = capsys.readouterr().err
    assert text.startswith('apt-eval: ') and 'Traceback' not in text
    return text


def test_the_command_writes_a_table_numbers_pictures_and_curves(checkpoints, held_out, tmp_path, capsys):
    words = [str(checkpoints[TrainingStage.VLA]), str(held_out), *QUICK, '--json', str(tmp_path / 'eval.json'),
             '--plots', str(tmp_path / 'plots'), '--tensorboard', str(tmp_path / 'board')]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert '6 observations of 3 episodes, 2 samples of each, seed 0' in shown
    assert 'mean of all' in shown and 'gate after block' in shown and 'language: the policy' in shown
    numbers = json.loads((tmp_path / 'eval.json').read_text())
    assert numbers['stage'] == 'vla' and numbers['iteration'] == 700
    assert set(numbers['horizon']['mean']['position']) == {'left', 'right'}
    assert len(numbers['horizon']['mean']['position']['left']) == 6 and len(numbers['gates']) == 3
    for name in ('errors', 'language', 'gates', 'examples'):
        assert cv2.imread(str(tmp_path / f'plots/{name}.png')).std() > 5
    board = EventAccumulator(str(tmp_path / 'board')).Reload()
    [event] = board.Scalars('eval/mean_position')
    assert event.step == 700 and event.value == pytest.approx(numbers['overall']['mean']['position'], rel=1e-5)
    assert 'eval/gates' in board.Tags()['images']


def test_a_prior_is_evaluated_without_language(checkpoints, held_out, capsys):
    assert main([str(checkpoints[TrainingStage.VA_PRIOR]), str(held_out), *QUICK]) == 0
    assert 'the policy ignores the instruction' in capsys.readouterr().out


def test_the_folder_of_a_run_stands_for_its_latest_checkpoint(checkpoints, held_out, tmp_path, capsys):
    run = tmp_path / 'run'
    run.mkdir()
    (run / 'iter_000700').symlink_to(checkpoints[TrainingStage.VLA])
    (run / 'latest').write_text('iter_000700\n')
    assert main([str(run), str(held_out), *QUICK, '--probe', '0']) == 0
    shown = capsys.readouterr().out
    assert 'iter_000700: vla, iteration 700' in shown.replace('\n', '')
    assert 'probe skipped, not requested' in shown


def test_numbers_that_cannot_be_are_named(checkpoints, held_out, capsys):
    assert main([str(checkpoints[TrainingStage.VLA]), str(held_out), *QUICK, '--noise-scale', '2']) == 2
    assert 'noise_scale is 2.0; expected 0' in error_text(capsys)
    assert main([str(checkpoints[TrainingStage.VLA]), str(held_out), *QUICK, '--frames', '0']) == 2
    assert '--frames is 0; expected 1 or more' in error_text(capsys)


def test_a_missing_checkpoint_is_named(held_out, tmp_path, capsys):
    assert main([str(tmp_path / 'nothing'), str(held_out)]) == 2
    assert 'there is no checkpoint at' in error_text(capsys)
    assert main([str(held_out), str(held_out)]) == 2
    assert 'is not a complete checkpoint' in error_text(capsys)


def test_a_folder_without_episodes_is_named(checkpoints, tmp_path, capsys):
    assert main([str(checkpoints[TrainingStage.VLA]), str(tmp_path)]) == 2
    assert 'has no episode file' in error_text(capsys)
    assert main([str(checkpoints[TrainingStage.VLA]), str(tmp_path / 'gone.h5')]) == 2
    assert 'gone.h5 does not exist' in error_text(capsys)


def test_every_corrupt_file_is_named_at_once(checkpoints, held_out, write_episode, tmp_path, capsys):
    (tmp_path / 'text.h5').write_text('no episode')
    write_episode(tmp_path / 'cut.h5')
    data = (tmp_path / 'cut.h5').read_bytes()
    (tmp_path / 'cut.h5').write_bytes(data[:len(data) // 2])
    assert main([str(checkpoints[TrainingStage.VLA]), str(held_out), str(tmp_path)]) == 2
    text = error_text(capsys)
    assert '2 of 5 episodes cannot be evaluated' in text and 'text.h5' in text and 'cut.h5' in text


def test_episodes_of_another_robot_name_what_differs(checkpoints, write_episode, tmp_path, capsys):
    write_episode(tmp_path / 'one_arm.h5', changes={'arms': ('only',)})
    write_episode(tmp_path / 'other_camera.h5', changes={'cameras': ('high', 'low')})
    assert main([str(checkpoints[TrainingStage.VLA]), str(tmp_path)]) == 2
    text = error_text(capsys)
    assert 'one_arm.h5 has arms only' in text and "other_camera.h5 has no camera 'wrist'" in text


def test_a_contract_that_is_not_the_checkpoints_names_the_fields(checkpoints, held_out, capsys):
    contract = Path(__file__).resolve().parents[3] / 'apt_bringup/config/aloha.yaml'
    assert main([str(checkpoints[TrainingStage.VLA]), str(held_out), '--contract', str(contract)]) == 2
    text = error_text(capsys)
    assert 'was trained for another robot' in text and 'horizon: checkpoint has 6, robot has 32' in text


def test_a_published_file_asks_for_a_contract(make_policy, held_out, tmp_path, capsys):
    torch.save({'weights': make_policy().expert.state_dict(), 'current_iters': 5}, tmp_path / 'ckpt_latest.pt')
    assert main([str(tmp_path / 'ckpt_latest.pt'), str(held_out)]) == 2
    assert 'does not record its robot; give the contract, for example --contract' in error_text(capsys)


def test_a_checkpoint_with_a_partial_contract_names_what_is_missing(make_policy, held_out, tmp_path, capsys):
    policy = make_policy()
    save_checkpoint(tmp_path / 'c', weights=policy.expert.state_dict(), vlm_weights=None, config=policy.config,
                    contract={'arms': ['left'], 'step_s': 0.1}, iteration=1, git_revision='')
    assert main([str(tmp_path / 'c'), str(held_out)]) == 2
    assert "lacks 'image_size'" in error_text(capsys)


@pytest.mark.parametrize(('words', 'says'), [
    (['--samples', '1'], 'samples is 1'), (['--frames', '0'], '--frames is 0'),
    (['--batch-size', '0'], 'batch_size is 0'), (['--device', 'gpu9'], "device is 'gpu9'"),
    (['--seed', '-1'], 'seed is -1')])
def test_values_that_cannot_be_used_are_named(checkpoints, held_out, capsys, words, says):
    assert main([str(checkpoints[TrainingStage.VLA]), str(held_out), *words]) == 2
    assert says in error_text(capsys)


def test_weights_that_give_no_number_are_refused(make_policy, checkpoints, held_out, tmp_path, capsys):
    policy = make_policy()
    with torch.no_grad():
        policy.expert.dp_head.act_head.bias.fill_(float('nan'))
    contract = read_checkpoint(checkpoints[TrainingStage.VLA]).contract
    save_policy(tmp_path / 'bad', policy, contract=contract, iteration=1,
                git_revision='')
    assert main([str(tmp_path / 'bad'), str(held_out), *QUICK]) == 2
    assert 'not finite' in error_text(capsys)


@pytest.mark.parametrize('workers', ['0', '1'])
def test_an_image_that_cannot_be_decoded_is_named_without_a_traceback(checkpoints, write_episode, tmp_path, capsys,
                                                                      workers):
    write_episode(tmp_path / 'bad.h5', count=4)
    with h5py.File(tmp_path / 'bad.h5', 'r+') as file:
        file['high/rgb'][1] = np.zeros(30, np.uint8)
    assert main([str(checkpoints[TrainingStage.VLA]), str(tmp_path), '--frames', '4', '--workers', workers]) == 2
    text = error_text(capsys)
    assert 'bad.h5, high/rgb, frame 1' in text and len(text.splitlines()) == 1
