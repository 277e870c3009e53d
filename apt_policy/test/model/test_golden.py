"""The expert equals an independent implementation, number by number.

The files are those of ``test/golden``, or of the folder that APT_GOLDEN_DIR names.
"""

import os
from pathlib import Path

import pytest
import torch

from apt_policy.model.config import TrainingStage
from apt_policy.model.diffusion import denoise, make_scheduler
from apt_policy.model.expert import Expert

FOLDER = Path(os.environ.get('APT_GOLDEN_DIR') or Path(__file__).resolve().parents[1] / 'golden')
FILES = sorted(FOLDER.glob('*.npz'))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request, vectors):
    return vectors.read(request.param)


@pytest.fixture
def expert(golden, vectors) -> Expert:
    return vectors.expert_of(golden)


def test_there_are_golden_files_of_both_stages(vectors):
    if 'APT_GOLDEN_DIR' in os.environ:
        assert FILES, f'APT_GOLDEN_DIR holds no .npz: {FOLDER}'
    else:
        assert {vectors.read(path).config['train_stage'] for path in FILES} == {0, 1}


def test_the_sizes_read_from_the_weights_are_those_of_the_file(golden, expert):
    config, given = expert.config, golden.config
    assert config.stage is (TrainingStage.VLA if given['train_stage'] else TrainingStage.VA_PRIOR)
    assert (config.width, config.heads, config.vlm_width, config.taps) == (
        given['hdim'], given['num_heads'], given['idim'], given['num_vlm_layers'])


def test_modality_and_positions_follow_from_the_masks(golden):
    assert torch.equal(golden.features.modality, golden.inputs['modality_type'])
    assert torch.equal(golden.features.positions, golden.inputs['pos_id_1d'])


def test_every_output_of_the_cached_path_is_equal(golden, expert, vectors):
    found = vectors.differences(golden, expert)
    assert {difference.output for difference in found} == {
        'encoded_future_action', 'eps', 'denoised_action', 'pred_future_ee_states'}
    assert all(difference.within for difference in found), found


def test_the_noise_predicted_by_the_recomputing_path_is_equal(golden, expert, vectors, uncached):
    with torch.no_grad():
        plain = uncached.observe_uncached(expert, golden.features, golden.robot)
        eps = uncached.predict_uncached(expert, plain, golden.noise, golden.inputs['timestep'])
    assert vectors.compare(golden, 'eps', eps).within


def test_the_actions_denoised_by_the_recomputing_path_are_equal(golden, expert, vectors, uncached):
    scheduler = make_scheduler(expert.config.train_steps, expert.config.denoising_steps)
    with torch.no_grad():
        plain = uncached.observe_uncached(expert, golden.features, golden.robot)
        actions = denoise(lambda x, step: uncached.predict_uncached(
            expert, plain, x, scheduler.timesteps[step].expand(len(x))), golden.noise, scheduler)
    assert vectors.compare(golden, 'denoised_action', actions).within


def test_bfloat16_weights_stay_within_their_own_tolerance_and_not_within_that_of_float32(golden, expert, vectors):
    found = vectors.differences(golden, expert.to(torch.bfloat16))
    assert all(difference.within for difference in found), found
    assert any(difference.share > vectors.TOLERANCE[torch.float32][difference.output] for difference in found)


@pytest.mark.parametrize('output', ['encoded_future_action', 'eps', 'denoised_action', 'pred_future_ee_states'])
def test_a_small_change_of_one_number_is_no_longer_equal(golden, vectors, output):
    changed = golden.outputs[output].clone()
    assert vectors.compare(golden, output, changed).within
    changed[:, :, 0] += 2e-4 * float(changed.abs().max())
    changed[:, 0] += 2e-4 * float(changed.abs().max())
    assert not vectors.compare(golden, output, changed).within
