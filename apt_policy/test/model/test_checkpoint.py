import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from apt_policy.core.atomic import backup_path
from apt_policy.model.checkpoint import (
    EXPERT_FILE,
    FACTS_FILE,
    CheckpointError,
    read_checkpoint,
    save_checkpoint,
)
from apt_policy.model.config import (
    TINY_VLM,
    PolicyConfig,
    TrainingStage,
    VlmConfig,
    VlmMode,
    policy_config_from_dict,
    policy_config_to_dict,
)
from apt_policy.model.policy import Policy
from apt_policy.model.restore import build_expert, build_policy, save_policy

CPU = torch.device('cpu')


@pytest.fixture
def make_policy(tiny_bridge, random_expert, small_config):
    """A policy over the tiny VLM, random numbers in every expert parameter."""
    def make(mode: VlmMode = VlmMode.FROZEN, stage: TrainingStage = TrainingStage.VLA, seed: int = 3) -> Policy:
        bridge = tiny_bridge(mode)
        expert = random_expert(small_config(stage, vlm_width=bridge.width, taps=bridge.taps), seed=seed)
        return Policy(PolicyConfig(expert=expert.config, vlm=bridge.config), bridge, expert)
    return make


@pytest.fixture
def save(aloha):
    def to(folder, policy, **changes):
        facts = {'contract': aloha.policy_facts(), 'iteration': 12, 'git_revision': 'abc', **changes}
        save_policy(folder, policy, **facts)
        return folder
    return to


def test_a_policy_comes_back_as_it_was_saved(make_policy, save, tmp_path, random_images, aloha):
    policy = make_policy()
    checkpoint = read_checkpoint(save(tmp_path / 'run' / 'last', policy))
    assert (checkpoint.iteration, checkpoint.git_revision) == (12, 'abc')
    assert checkpoint.contract == aloha.policy_facts()
    checkpoint.require_contract(aloha.policy_facts())
    checkpoint.require_stage(TrainingStage.VLA)
    restored = build_policy(checkpoint, device=CPU)
    assert restored.config == policy.config
    for key, value in policy.state_dict().items():
        assert torch.equal(restored.state_dict()[key], value), key
    images = random_images(('go',))
    assert torch.equal(restored.vlm(images).hidden_states, policy.vlm(images).hidden_states)


@pytest.mark.parametrize('mode', [VlmMode.LORA, VlmMode.FULL])
def test_a_tuned_vlm_travels_along(make_policy, save, tmp_path, random_images, mode):
    policy = make_policy(mode)
    with torch.no_grad():
        for parameter in policy.vlm.parameters():
            if parameter.requires_grad:
                parameter.add_(0.03)
    folder = save(tmp_path / 'tuned', policy)
    saved = load_file(folder / 'vlm.safetensors')
    assert all('lora_' in key for key in saved) == (mode is VlmMode.LORA)
    restored = build_policy(read_checkpoint(folder), device=CPU)
    images = random_images(('go',))
    assert restored.vlm.config.mode is mode
    assert torch.equal(restored.vlm(images).hidden_states, policy.vlm(images).hidden_states)


def test_configurations_survive_json(small_config):
    config = PolicyConfig(expert=small_config(TrainingStage.VA_PRIOR),
                          vlm=VlmConfig(name='x', mode=VlmMode.LORA, gradient_checkpointing=True))
    assert policy_config_from_dict(policy_config_to_dict(config)) == config


def publish(path, policy, **more):
    torch.save({'weights': policy.expert.state_dict(), 'current_iters': 40, 'scaler': {'scale': 2.0}, **more}, path)
    return path


def test_a_published_file_gives_its_expert(make_policy, tmp_path):
    policy = make_policy(stage=TrainingStage.VA_PRIOR)
    checkpoint = read_checkpoint(publish(tmp_path / 'ckpt_latest.pt', policy))
    assert (checkpoint.iteration, checkpoint.contract, checkpoint.expert.stage) == (40, None, TrainingStage.VA_PRIOR)
    expert = build_expert(checkpoint)
    assert all(torch.equal(value, expert.state_dict()[key])
               for key, value in policy.expert.state_dict().items())


@pytest.mark.parametrize('prefix', ['', 'model.', 'module.model.'])
def test_a_published_tuned_vlm_is_used_whatever_wrapper_it_was_saved_from(
        make_policy, tmp_path, random_images, prefix):
    policy = make_policy(VlmMode.FULL)
    with torch.no_grad():
        for parameter in policy.vlm.parameters():
            parameter.mul_(1.1)
    tuned = {prefix + key: value for key, value in policy.vlm.model.state_dict().items()}
    # What is never run is in the file too.
    tuned |= {prefix + 'language_model.norm.weight': torch.ones(96), 'lm_head.weight': torch.ones(2, 2),
              prefix + 'language_model.layers.10.mlp.up_proj.weight': torch.ones(1)}
    path = publish(tmp_path / 'ckpt_latest.pt', policy, vlm_weights=tuned)
    restored = build_policy(read_checkpoint(path), device=CPU, vlm=VlmConfig(name=TINY_VLM, dtype='float32'))
    images = random_images(('go',))
    assert torch.allclose(restored.vlm(images).hidden_states, policy.vlm(images).hidden_states, atol=1e-6)


def test_a_published_lora_vlm_is_recognised(make_policy, tmp_path, random_images):
    policy = make_policy(VlmMode.LORA)
    adapters = {f'base_model.model.model.{key}': value + 0.02
                for key, value in policy.vlm.model.state_dict().items() if 'lora_' in key}
    path = publish(tmp_path / 'ckpt_latest.pt', policy, vlm_weights=adapters)
    restored = build_policy(read_checkpoint(path), device=CPU, vlm=VlmConfig(name=TINY_VLM, dtype='float32'))
    assert restored.vlm.config.mode is VlmMode.LORA
    images = random_images(('go',))
    assert not torch.allclose(restored.vlm(images).hidden_states, policy.vlm(images).hidden_states, atol=1e-3)


class Evil:
    """Would make a folder if it were unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickled_code_is_refused_and_not_run(tmp_path):
    torch.save({'weights': {}, 'hook': Evil(tmp_path / 'ran')}, tmp_path / 'ckpt_latest.pt')
    with pytest.raises(CheckpointError, match='contains pickled code, which is never run'):
        read_checkpoint(tmp_path / 'ckpt_latest.pt')
    assert not (tmp_path / 'ran').exists()


def test_the_folder_of_a_run_stands_for_its_newest_checkpoint(make_policy, tmp_path):
    policy = make_policy()
    for iteration in (1, 2):
        save_policy(tmp_path / f'iter_{iteration:06d}', policy, contract={}, iteration=iteration, git_revision='')
    (tmp_path / 'latest').write_text('iter_000001\n')
    assert read_checkpoint(tmp_path).iteration == 1
    (tmp_path / 'latest').write_text('iter_000003\n')
    with pytest.raises(CheckpointError, match="latest names 'iter_000003', but there is no such checkpoint"):
        read_checkpoint(tmp_path)


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_no_junk_is_read_or_ends_in_an_error_of_the_unpickler(tmp_path):
    path = tmp_path / 'junk.pt'
    for seed in range(400):
        random = np.random.default_rng(seed)
        path.write_bytes((b'\x80\x02' if seed % 2 else b'') + random.bytes(int(random.integers(1, 60))))
        with pytest.raises(CheckpointError, match=r'junk\.pt'):
            read_checkpoint(path)


@pytest.mark.parametrize('keep', [0, 7, 1000], ids=['empty', 'few bytes', 'truncated'])
def test_a_corrupt_published_file_is_named(make_policy, tmp_path, keep):
    path = publish(tmp_path / 'ckpt_latest.pt', make_policy())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r'ckpt_latest\.pt is corrupt: .*; copy it again'):
        read_checkpoint(path)


@pytest.mark.parametrize(('content', 'message'), [
    ({'model': {}}, r"holds \['model'\]; a published checkpoint has its weights under 'weights'"),
    (torch.zeros(2), "holds Tensor; a published checkpoint has its weights under 'weights'"),
    ({'weights': {'a': torch.zeros(1)}}, "the 'weights' of .* are not those of an APT expert: .*proj_input"),
])
def test_a_file_of_something_else_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / 'x.pt')
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / 'x.pt')


def test_nothing_at_the_path_says_what_to_give(tmp_path):
    with pytest.raises(CheckpointError, match=r'there is no checkpoint at .*; give a folder with a checkpoint.json'):
        read_checkpoint(tmp_path / 'nowhere')


def damage_facts(folder):
    (folder / FACTS_FILE).write_text('{"format": "apt-policy-ch')


def damage_weights(folder):
    (folder / EXPERT_FILE).write_bytes((folder / EXPERT_FILE).read_bytes()[:500])


def lose_weights(folder):
    (folder / EXPERT_FILE).unlink()


def lose_field(folder):
    (folder / FACTS_FILE).write_text('{"format": "apt-policy-checkpoint/1"}')


def other_format(folder):
    (folder / FACTS_FILE).write_text('{"format": "something/9", "git_revision": "abc"}')


@pytest.mark.parametrize(('damage', 'message'), [
    (damage_facts, 'is corrupt: JSONDecodeError'), (damage_weights, 'is corrupt: SafetensorError'),
    (lose_weights, r'is not a complete checkpoint, a file is missing: .*expert\.safetensors'),
    (lose_field, "is corrupt: KeyError: 'model'"),
    (other_format, "has format 'something/9', expected 'apt-policy-checkpoint/1'; .* version of .* wrote it .*'abc'"),
])
def test_a_damaged_folder_says_what_is_wrong(make_policy, save, tmp_path, damage, message):
    folder = save(tmp_path / 'last', make_policy())
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(folder)


def test_another_stage_is_refused(make_policy, save, tmp_path):
    checkpoint = read_checkpoint(save(tmp_path / 'last', make_policy(stage=TrainingStage.VA_PRIOR)))
    with pytest.raises(CheckpointError, match='holds a va_prior, expected a vla'):
        checkpoint.require_stage(TrainingStage.VLA)


def test_another_robot_is_refused_with_every_differing_field(make_policy, save, tmp_path, aloha):
    checkpoint = read_checkpoint(save(tmp_path / 'last', make_policy()))
    other = {**aloha.policy_facts(), 'horizon': 16, 'cameras': ['eye']}
    with pytest.raises(CheckpointError, match=r"(?s)cameras: checkpoint has \['cam_high'.*horizon: checkpoint has 32, "
                                              'robot has 16'):
        checkpoint.require_contract(other)


def test_a_published_file_passes_for_any_robot(make_policy, tmp_path):
    read_checkpoint(publish(tmp_path / 'ckpt_latest.pt', make_policy())).require_contract({'horizon': 1})


@pytest.mark.parametrize(('change', 'message'), [
    (lambda w: w.pop('dp_head.act_head.bias'), r'missing: dp_head\.act_head\.bias'),
    (lambda w: w.update(stray=torch.zeros(1)), 'unexpected: stray'),
    (lambda w: w.update({'dp_head.act_head.bias': torch.zeros(11)}),
     r'dp_head\.act_head\.bias: shape \(11,\), expected \(10,\)'),
])
def test_weights_that_do_not_fit_are_named(make_policy, save, tmp_path, change, message):
    folder = save(tmp_path / 'last', make_policy())
    weights = load_file(folder / EXPERT_FILE)
    change(weights)
    save_file(weights, folder / EXPERT_FILE)
    with pytest.raises(CheckpointError, match=message):
        build_expert(read_checkpoint(folder))


def test_missing_vlm_weights_are_named(make_policy, tmp_path):
    policy = make_policy(VlmMode.FULL)
    tuned = dict(policy.vlm.model.state_dict())
    del tuned['visual.blocks.0.norm1.weight']
    path = publish(tmp_path / 'ckpt_latest.pt', policy, vlm_weights=tuned)
    with pytest.raises(CheckpointError, match=r'the VLM weights of .*(?s:.)*missing: visual\.blocks\.0\.norm1\.weight'):
        build_policy(read_checkpoint(path), device=CPU, vlm=VlmConfig(name=TINY_VLM, dtype='float32'))


def test_an_expert_over_another_vlm_is_refused(random_expert, small_config, tmp_path):
    expert = random_expert(small_config(vlm_width=48, taps=6))
    torch.save({'weights': expert.state_dict()}, tmp_path / 'ckpt_latest.pt')
    with pytest.raises(CheckpointError, match='with 6 taps of width 48; tiny has 4 of width 96'):
        build_policy(read_checkpoint(tmp_path / 'ckpt_latest.pt'), device=CPU,
                     vlm=VlmConfig(name=TINY_VLM, dtype='float32'))


def weights_of(folder):
    return build_expert(read_checkpoint(folder)).state_dict()['dp_head.act_head.weight']


def test_a_newer_checkpoint_takes_the_place_of_the_older(make_policy, save, tmp_path):
    folder = save(tmp_path / 'last', make_policy(seed=1))
    save(folder, make_policy(seed=2), iteration=13)
    assert read_checkpoint(folder).iteration == 13
    assert sorted(path.name for path in tmp_path.iterdir()) == ['last']


def test_a_save_that_fails_midway_keeps_the_older_checkpoint(make_policy, save, tmp_path, small_config):
    policy = make_policy(seed=1)
    folder = save(tmp_path / 'last', policy)
    shared = torch.zeros(4)
    with pytest.raises(RuntimeError):
        # safetensors refuses tensors that share memory: the expert is written by then.
        save_checkpoint(folder, weights=make_policy(seed=2).expert.state_dict(),
                        vlm_weights={'a': shared, 'b': shared}, config=policy.config, contract={}, iteration=99,
                        git_revision='')
    assert read_checkpoint(folder).iteration == 12
    assert torch.equal(weights_of(folder), policy.expert.state_dict()['dp_head.act_head.weight'])
    assert sorted(path.name for path in tmp_path.iterdir()) == ['last']


def test_a_crash_between_the_two_renames_leaves_the_older_checkpoint_readable(make_policy, save, tmp_path):
    folder = save(tmp_path / 'last', make_policy())
    folder.rename(backup_path(folder))
    assert read_checkpoint(folder).iteration == 12
    save(folder, make_policy(), iteration=13)
    assert read_checkpoint(folder).iteration == 13


def test_an_expert_of_impossible_sizes_is_refused(small_config):
    with pytest.raises(ValueError, match='width 36 over 3 heads gives a head of 12 channels; .* multiple of 8'):
        small_config(width=36, heads=3)
    with pytest.raises(ValueError, match='taps is 1; the VA prior needs at least 2'):
        small_config(taps=1)
    with pytest.raises(ValueError, match='denoising_steps is 101'):
        replace(small_config(), denoising_steps=101)
    with pytest.raises(ValueError, match="dtype is 'int8'"):
        VlmConfig(dtype='int8')


def test_an_odd_number_of_taps_is_refused_with_what_to_do(small_config):
    with pytest.raises(ValueError, match=r'taps is 3; expected an even number.*\(4 to 6 layers or 10 to 12 layers\)'):
        small_config(taps=3)
