"""Cached features against the VLM run each time."""

from dataclasses import replace

import pytest
import torch

from apt_policy.model.config import TrainingStage
from apt_training.train.feature_cache import FeatureCache, TensorStore, stored_taps, to_half_precision, vlm_digest
from apt_training.train.initialize import build_new_policy
from apt_training.train.objective import Objective

CPU = torch.device('cpu')


@pytest.fixture(params=TrainingStage)
def policy(request, synthetic):
    stage = '0' if request.param is TrainingStage.VA_PRIOR else '1'
    torch.manual_seed(0)
    made = build_new_policy(synthetic.make_config({'iterations': 1, 'stage': stage}), CPU)
    # Zero-initialised layers would hide a wrong feature.
    with torch.no_grad():
        for parameter in made.expert.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


@pytest.fixture
def cache(policy, tmp_path):
    return FeatureCache(tmp_path, policy.vlm, policy.config.expert.stage)


def mixed_micro_batch(synthetic):
    """Instructions of different lengths, so there is padding; one sample lacks a camera."""
    micro_batch = synthetic.synthetic_micro_batch(3, seed=0)
    mask = micro_batch.batch.images.mask.clone()
    mask[1, 0] = False
    images = replace(micro_batch.batch.images, mask=mask, prompts=('lift', 'put the cube into the tray', 'go'))
    return replace(micro_batch, batch=replace(micro_batch.batch, images=images))


def losses_and_gradients(policy, micro_batch):
    policy.zero_grad()
    loss = Objective(policy)(micro_batch, seed=1)
    loss[0].backward()
    return loss.detach(), {name: p.grad.clone() for name, p in policy.expert.named_parameters() if p.grad is not None}


def test_loss_and_gradients_are_those_of_the_vlm_run_each_time(policy, cache, synthetic):
    micro_batch = mixed_micro_batch(synthetic)
    exact, exact_gradients = losses_and_gradients(policy, micro_batch)
    for expected in ((0, 3), (3, 3)):
        features = cache.load_or_compute(micro_batch.batch.images, micro_batch.sources)
        assert (cache.counts.hits, cache.counts.misses) == expected
        got, gradients = losses_and_gradients(policy, replace(micro_batch, features=features))
        assert torch.allclose(got, exact, rtol=2e-3)
        assert gradients.keys() == exact_gradients.keys()
        for name, gradient in gradients.items():
            scale = exact_gradients[name].abs().max()
            assert torch.allclose(gradient, exact_gradients[name], rtol=0.02, atol=float(0.02 * scale) + 1e-6), name


def test_the_prior_s_entries_do_not_depend_on_the_instruction_and_the_vla_s_do(policy, cache, synthetic):
    micro_batch = mixed_micro_batch(synthetic)
    said_otherwise = replace(micro_batch.batch.images, prompts=('stop',) * 3)
    keys = [cache.entry_key(micro_batch.batch.images, 0, 'a'), cache.entry_key(said_otherwise, 0, 'a')]
    assert (len(set(keys)) == 1) == (policy.config.expert.stage is TrainingStage.VA_PRIOR)


@pytest.mark.parametrize('change', ['source', 'order', 'pixels', 'camera'])
def test_any_change_of_the_vlm_s_input_is_another_entry(policy, cache, synthetic, change):
    images = mixed_micro_batch(synthetic).batch.images
    changed = {'source': images, 'order': replace(images, rgb=images.rgb.flip(1)),
               'pixels': replace(images, rgb=images.rgb * 0.9),
               'camera': replace(images, mask=images.mask & torch.tensor([True, False])[None, :, None, None])}[change]
    assert cache.entry_key(images, 0, 'a') != cache.entry_key(changed, 0, 'b' if change == 'source' else 'a')


def test_a_vlm_with_other_weights_has_another_folder(policy):
    before = vlm_digest(policy.vlm)
    assert vlm_digest(policy.vlm) == before
    with torch.no_grad():
        next(policy.vlm.model.parameters()).view(-1)[0].add_(1e-3)
    assert vlm_digest(policy.vlm) != before


@pytest.mark.parametrize('content', [b'', b'junk', None])
def test_a_corrupt_entry_is_computed_again_with_a_warning(policy, cache, synthetic, caplog, tmp_path, content):
    micro_batch = mixed_micro_batch(synthetic)
    first = cache.load_or_compute(micro_batch.batch.images, micro_batch.sources)
    entry = sorted(tmp_path.rglob('*.safetensors'))[0]
    entry.write_bytes(entry.read_bytes()[:-40] if content is None else content)
    again = cache.load_or_compute(micro_batch.batch.images, micro_batch.sources)
    assert 'is corrupt' in caplog.text and cache.counts.misses == 4
    assert torch.allclose(again.hidden_states, first.hidden_states, rtol=1e-2, atol=1e-2)
    caplog.clear()
    cache.load_or_compute(micro_batch.batch.images, micro_batch.sources)
    assert not caplog.text


def test_only_taps_that_some_block_reads_are_kept():
    assert stored_taps(TrainingStage.VA_PRIOR, 10) == (1, 3, 5, 7)
    assert stored_taps(TrainingStage.VLA, 4) == (0, 1, 2)
    assert stored_taps(TrainingStage.VA_PRIOR, 2) == ()


def test_sixteen_bits_lose_nothing_of_bfloat16_and_little_of_float32():
    features = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 30
    assert torch.equal(to_half_precision(features.bfloat16()), features.bfloat16())
    error = (to_half_precision(features).float() - features).abs() / features.abs()
    assert to_half_precision(features).dtype is torch.float16 and error.max() < 2 ** -11
    assert to_half_precision(features * 1e4).dtype is torch.bfloat16, 'out of the range of float16'


def test_the_estimate_is_what_is_written(policy, cache, synthetic, tmp_path):
    micro_batch = synthetic.synthetic_micro_batch(2, seed=0)
    cache.load_or_compute(micro_batch.batch.images, micro_batch.sources)
    each = sum(path.stat().st_size for path in tmp_path.rglob('*.safetensors')) / 2
    text = 2 * 2 + 32
    assert cache.bytes_per_sample(cameras=2, side=64, text_tokens=text) == pytest.approx(each, rel=0.4)


def test_writers_of_one_key_do_not_disturb_each_other(tmp_path):
    stores = [TensorStore(tmp_path), TensorStore(tmp_path)]
    for store in stores:
        store.write('abcd', {'x': torch.ones(3)})
    assert torch.equal(stores[0].read('abcd')['x'], torch.ones(3)) and stores[0].count() == 1
    assert stores[0].read('beef') is None and not list(tmp_path.rglob('*.partial'))
