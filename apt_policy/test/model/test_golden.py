"""The expert equals an independent implementation, number by number.

The files are those of ``test/golden``, or of the folder that APT_GOLDEN_DIR names.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from apt_policy.model.actions import encode_states
from apt_policy.model.checkpoint import read_checkpoint
from apt_policy.model.config import Stage
from apt_policy.model.diffusion import denoise, make_scheduler
from apt_policy.model.expert import Expert
from apt_policy.model.policy import predict_states
from apt_policy.model.recompute import observe_plainly, predict_plainly
from apt_policy.model.restore import build_expert
from apt_policy.model.sampler import ActionSampler

FOLDER = Path(os.environ.get('APT_GOLDEN_DIR') or Path(__file__).resolve().parents[1] / 'golden')
FILES = sorted(FOLDER.glob('*.npz'))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request, read_golden):
    return read_golden(request.param)


@pytest.fixture
def expert(golden, tmp_path) -> Expert:
    """Through the very loader that reads published checkpoints."""
    path = tmp_path / 'ckpt_latest.pt'
    torch.save({'weights': dict(golden.weights), 'current_iters': 7}, path)
    checkpoint = read_checkpoint(path)
    steps = {'train_steps': golden.config['diffusion_timesteps'],
             'denoising_steps': golden.config['inference_timesteps']}
    return build_expert(replace(checkpoint, expert=replace(checkpoint.expert, **steps))).eval()


def horizon(golden) -> int:
    return golden.inputs['initial_noise'].shape[2]


def worst(got: Tensor, expected: Tensor, valid: Tensor) -> float:
    return float((got - expected)[valid].abs().max())


def test_there_are_golden_files_of_both_stages(read_golden):
    if 'APT_GOLDEN_DIR' in os.environ:
        assert FILES, f'APT_GOLDEN_DIR holds no .npz: {FOLDER}'
    else:
        assert {read_golden(path).config['train_stage'] for path in FILES} == {0, 1}


def test_the_sizes_read_from_the_weights_are_those_of_the_file(golden, expert):
    config, given = expert.config, golden.config
    assert config.stage is (Stage.VLA if given['train_stage'] else Stage.VA_PRIOR)
    assert (config.width, config.heads, config.vlm_width, config.taps) == (
        given['hdim'], given['num_heads'], given['idim'], given['num_vlm_layers'])


def test_modality_and_positions_follow_from_the_masks(golden):
    assert torch.equal(golden.features.modality, golden.inputs['modality_type'])
    assert torch.equal(golden.features.positions, golden.inputs['pos_id_1d'])


def test_encoded_actions_are_equal(golden):
    encoded = encode_states(golden.inputs['future_ee_states'], golden.robot)
    assert worst(encoded, golden.outputs['encoded_future_action'], golden.robot.valid_arms) < 1e-5


@pytest.mark.parametrize('path', ['cached', 'recomputed'])
def test_predicted_noise_is_equal(golden, expert, path):
    noisy, level = golden.inputs['initial_noise'], golden.inputs['timestep']
    with torch.no_grad():
        if path == 'cached':
            context = expert.observe(golden.features, golden.robot, horizon=horizon(golden))
            eps = expert.predict(context, noisy, level)
        else:
            plain = observe_plainly(expert, golden.features, golden.robot)
            eps = predict_plainly(expert, plain, noisy, level)
    assert worst(eps, golden.outputs['eps'], golden.robot.valid_arms) < 1e-4


def sample_cached(golden, expert) -> Tensor:
    sampler = ActionSampler(expert)
    context = sampler.observe(golden.features, golden.robot, horizon=horizon(golden))
    return sampler.sample(context, golden.inputs['initial_noise'])


def sample_recomputed(golden, expert) -> Tensor:
    scheduler = make_scheduler(expert.config.train_steps, expert.config.denoising_steps)
    noise = golden.inputs['initial_noise']
    with torch.no_grad():
        plain = observe_plainly(expert, golden.features, golden.robot)
        return denoise(lambda x, step: predict_plainly(
            expert, plain, x, scheduler.timesteps[step].expand(len(x))), noise, scheduler)


@pytest.mark.parametrize('sample', [sample_cached, sample_recomputed])
def test_denoised_actions_are_equal(golden, expert, sample: Callable[..., Tensor]):
    expected, valid = golden.outputs['denoised_action'], golden.robot.valid_arms
    assert worst(sample(golden, expert), expected, valid) < 1e-4 * float(expected[valid].abs().max())


def test_predicted_poses_in_the_world_are_equal(golden, expert):
    states = predict_states(ActionSampler(expert), golden.features, golden.robot,
                            golden.inputs['initial_noise'])
    expected, valid = golden.outputs['pred_future_ee_states'].transpose(1, 2), golden.robot.valid_arms
    assert worst(states.transpose(1, 2), expected, valid) < 1e-4 * float(expected[valid].abs().max())
