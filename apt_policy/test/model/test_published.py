"""Published files as their authors' trainer writes them: wrappers, numpy's numbers, averages, a tuned VLM."""

import pickle

import numpy as np
import pytest
import torch

from apt_policy.model.checkpoint import CheckpointError, ema_path, read_checkpoint
from apt_policy.model.config import TINY_VLM, PolicyConfig, TrainingStage, VlmConfig, VlmMode
from apt_policy.model.policy import Policy
from apt_policy.model.restore import build_expert, build_policy, load_vlm_weights, save_policy

CPU = torch.device('cpu')
OVER_TINY = VlmConfig(name=TINY_VLM, dtype='float32')
UPSTREAM = '_qwen.model.'


@pytest.fixture
def make_policy(tiny_bridge, random_expert, small_config):
    """A policy over the tiny VLM, random numbers in every expert parameter."""
    def make(mode: VlmMode = VlmMode.FROZEN) -> Policy:
        bridge = tiny_bridge(mode)
        expert = random_expert(small_config(TrainingStage.VLA, vlm_width=bridge.width, taps=bridge.taps), seed=3)
        return Policy(PolicyConfig(expert=expert.config, vlm=bridge.config), bridge, expert)
    return make


@pytest.fixture
def publish(tmp_path):
    def to(weights, **more):
        path = tmp_path / 'ckpt_latest.pt'
        torch.save({'weights': weights, 'current_iters': 40, **more}, path)
        return path
    return to


def equal(got, expected):
    return set(got) == set(expected) and all(torch.equal(got[key], value) for key, value in expected.items())


def shaken(policy: Policy) -> None:
    """Change what learns in the VLM, as training would."""
    with torch.no_grad():
        for parameter in policy.vlm.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.1).add_(0.01)


@pytest.mark.parametrize('prefix', [UPSTREAM, 'vlm.' + UPSTREAM, 'module.vlm.' + UPSTREAM, 'vlm._orig_mod.' + UPSTREAM])
def test_a_vlm_that_was_tuned_whole_is_read_under_the_names_of_the_published_trainer(
        make_policy, publish, random_images, prefix):
    policy = make_policy(VlmMode.FULL)
    shaken(policy)
    tuned = {prefix + key: value for key, value in policy.vlm.model.state_dict().items()}
    # What is never run is in the file too, and the head under a name with nothing to cut at.
    tuned |= {prefix + 'language_model.norm.weight': torch.ones(96), prefix + 'lm_head.weight': torch.ones(2, 2),
              prefix + 'language_model.layers.10.mlp.up_proj.weight': torch.ones(1)}
    path = publish(policy.expert.state_dict(), vlm_weights=tuned)
    restored = build_policy(read_checkpoint(path), device=CPU, vlm=OVER_TINY)
    images = random_images(('go',))
    assert torch.allclose(restored.vlm(images).hidden_states, policy.vlm(images).hidden_states, atol=1e-6)


def test_adapters_are_read_under_the_names_of_the_published_trainer(make_policy, publish, random_images):
    policy = make_policy(VlmMode.LORA)
    shaken(policy)
    adapters = {UPSTREAM + key: value for key, value in policy.vlm.model.state_dict().items() if 'lora_' in key}
    path = publish(policy.expert.state_dict(), vlm_weights=adapters)
    restored = build_policy(read_checkpoint(path), device=CPU, vlm=OVER_TINY)
    images = random_images(('go',))
    assert restored.vlm.config.mode is VlmMode.LORA
    assert torch.equal(restored.vlm(images).hidden_states, policy.vlm(images).hidden_states)


def test_two_weights_of_one_name_are_refused(make_policy):
    policy = make_policy(VlmMode.FULL)
    name = 'visual.blocks.0.norm1.weight'
    twice = {f'{wrapper}{name}': torch.zeros(1) for wrapper in (UPSTREAM, 'qwen_peft.base_model.model.model.')}
    with pytest.raises(CheckpointError, match=rf"'_qwen.model.{name}' and 'qwen_peft.*' are both '{name}' without"):
        load_vlm_weights(policy.vlm, twice, source='ckpt_latest.pt')


def test_a_name_is_cut_at_whole_words_only(make_policy):
    policy = make_policy(VlmMode.FULL)
    with pytest.raises(CheckpointError, match=r'unexpected: nonvisual\.weight'):
        load_vlm_weights(policy.vlm, {**policy.vlm.model.state_dict(), 'nonvisual.weight': torch.ones(1)},
                         source='ckpt_latest.pt')


@pytest.mark.parametrize('prefix', ['_orig_mod.', 'module.', 'module._orig_mod.', '_orig_mod.module.'])
def test_an_expert_saved_from_a_wrapper_is_read(make_policy, publish, prefix):
    expected = make_policy().expert.state_dict()
    checkpoint = read_checkpoint(publish({prefix + key: value for key, value in expected.items()}))
    assert equal(build_expert(checkpoint).state_dict(), expected)


def test_an_expert_that_is_there_with_and_without_a_wrapper_is_refused(make_policy, publish):
    weights = make_policy().expert.state_dict()
    twice = {**weights, **{'module.' + key: value for key, value in weights.items()}}
    with pytest.raises(CheckpointError, match=r"are both '.*' without wrapper prefixes; save the model"):
        read_checkpoint(publish(twice))


@pytest.mark.parametrize('number', [np.float64(0.25), np.float32(0.25), np.int64(-7), np.bool_(True), np.str_('best'),
                                    np.array(0.25, '>f8')[()]])
def test_numbers_of_numpy_are_numbers_and_no_code(make_policy, publish, number):
    policy = make_policy()
    checkpoint = read_checkpoint(publish(policy.expert.state_dict(), best_score=number, current_iters=np.int64(41)))
    assert checkpoint.iteration == 41
    assert equal(checkpoint.weights, policy.expert.state_dict())


def test_objects_of_numpy_stay_refused(make_policy, publish):
    """An array of objects unpickles whatever it likes; so does a number of a made-up type."""
    for value in (np.array([1, 'a'], object), np.datetime64('2026-01-01'), np.zeros(1, [('a', 'O')])[0]):
        with pytest.raises(CheckpointError, match='contains pickled code, which is never run'):
            read_checkpoint(publish(make_policy().expert.state_dict(), extra=value))


def test_numpy_reads_as_pickled_code_again_afterwards(make_policy, publish):
    path = publish(make_policy().expert.state_dict(), best_score=np.float64(1.0))
    read_checkpoint(path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def shadow_of(*parts) -> dict:
    return {'decay': 0.9995, 'num_updates': 9, 'collected_params': None,
            'shadow_params': [value * 0.5 for part in parts for value in part.values()]}


def test_averages_are_taken_where_they_are_asked_for_and_named_where_not(make_policy, publish, caplog):
    weights = make_policy().expert.state_dict()
    path = publish(weights, ema=shadow_of(weights))
    assert equal(read_checkpoint(path).weights, weights)
    assert "also contains averaged weights under 'ema', which are not used; set use_ema" in caplog.text
    assert equal(read_checkpoint(path, use_ema=True).weights, {key: value * 0.5 for key, value in weights.items()})


def test_averages_by_name_are_taken_too(make_policy, publish):
    weights = make_policy().expert.state_dict()
    path = publish(weights, ema={'module.' + key: value * 0.5 for key, value in reversed(weights.items())})
    assert equal(read_checkpoint(path, use_ema=True).weights, {key: value * 0.5 for key, value in weights.items()})


def test_averages_of_a_tuned_vlm_stand_before_those_of_the_expert(make_policy, publish):
    policy = make_policy(VlmMode.FULL)
    weights = policy.expert.state_dict()
    tuned = {UPSTREAM + key: value for key, value in policy.vlm.model.state_dict().items()}
    # In the state dict, not among the parameters: it is the embeddings once more.
    head = {'_qwen.lm_head.weight': tuned[UPSTREAM + 'language_model.embed_tokens.weight']}
    checkpoint = read_checkpoint(publish(weights, vlm_weights={**tuned, **head}, ema=shadow_of(tuned, weights)),
                                 use_ema=True)
    assert equal(checkpoint.weights, {key: value * 0.5 for key, value in weights.items()})
    assert equal(checkpoint.vlm_weights, {**{key: value * 0.5 for key, value in tuned.items()}, **head})


def test_a_file_without_averages_says_so(make_policy, publish):
    path = publish(make_policy().expert.state_dict())
    with pytest.raises(CheckpointError, match="has no averaged weights: it holds no 'ema'. .* use_ema=False"):
        read_checkpoint(path, use_ema=True)


@pytest.mark.parametrize(('change', 'message'), [
    (lambda ema, weights: {**ema, 'shadow_params': ema['shadow_params'][1:]}, 'holds .* shadow_params; expected one'),
    (lambda ema, weights: {**ema, 'shadow_params': ema['shadow_params'][::-1]}, 'holds .* shadow_params; expected one'),
    (lambda ema, weights: {'model': 3}, "'ema' holds model; expected shadow_params, or averages of 'weights'"),
    (lambda ema, weights: dict.fromkeys(weights, 1.0), "'ema' holds .*, ...; expected shadow_params"),
    (lambda ema, weights: 7, 'holds 0 shadow_params'),
])
def test_averages_that_do_not_fit_are_refused(make_policy, publish, change, message):
    weights = make_policy().expert.state_dict()
    path = publish(weights, ema=change(shadow_of(weights), weights))
    with pytest.raises(CheckpointError, match=rf'the averaged weights of .* cannot be used: .*{message}'):
        read_checkpoint(path, use_ema=True)


def test_the_averages_of_a_run_stand_in_a_folder_beside_its_checkpoint(make_policy, tmp_path):
    policy = make_policy()
    folder = tmp_path / 'iter_000002'
    save_policy(folder, policy, contract={}, iteration=2, git_revision='')
    (tmp_path / 'latest').write_text('iter_000002\n')
    with pytest.raises(CheckpointError, match='has no averaged weights: there is no iter_000002_ema beside it'):
        read_checkpoint(tmp_path, use_ema=True)
    with torch.no_grad():
        for parameter in policy.expert.parameters():
            parameter.mul_(0.5)
    save_policy(ema_path(folder), policy, contract={}, iteration=2, git_revision='')
    for path in (tmp_path, folder):
        assert equal(read_checkpoint(path, use_ema=True).weights, policy.expert.state_dict())
        assert not equal(read_checkpoint(path).weights, policy.expert.state_dict())
