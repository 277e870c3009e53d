import pytest
import torch

from apt_policy.model.config import TrainingStage
from apt_policy.model.stages import Transfer, TransferError, transfer_prior

HORIZON = 5
LAYERS = 'dp_head.traj_context_attn.layers'


@pytest.fixture
def prior(small_config, random_expert):
    return random_expert(small_config(TrainingStage.VA_PRIOR), seed=1)


@pytest.fixture
def vla(small_config, random_expert):
    return random_expert(small_config(TrainingStage.VLA), seed=2)


def test_every_weight_of_the_vla_is_accounted_for(prior, vla):
    fresh = {key: value.clone() for key, value in vla.state_dict().items()}
    report = transfer_prior(prior.state_dict(), vla)
    assert set(report.copied) | set(report.new) == set(fresh) and not set(report.copied) & set(report.new)
    assert set(report.copied.values()) == set(prior.state_dict())
    for key, value in vla.state_dict().items():
        source = report.copied.get(key)
        assert torch.equal(value, fresh[key] if source is None else prior.state_dict()[source])


def test_block_i_becomes_block_2i_plus_1_and_even_blocks_are_new(prior, vla):
    report = transfer_prior(prior.state_dict(), vla)
    assert report.copied[f'{LAYERS}.3.attn.to_qkv.weight'] == f'{LAYERS}.1.attn.to_qkv.weight'
    assert {key.split('.')[3] for key in report.new} == {'0', '2'}


def test_the_published_way_copies_the_blocks_only(prior, vla):
    fresh_head = vla.state_dict()['dp_head.act_head.weight'].clone()
    report = transfer_prior(prior.state_dict(), vla, Transfer.BLOCKS_ONLY)
    assert all(key.startswith(LAYERS) for key in report.copied)
    assert 'dp_head.act_head.weight' in report.new
    assert torch.equal(vla.state_dict()['dp_head.act_head.weight'], fresh_head)


def test_a_vla_whose_new_blocks_are_silent_computes_what_the_prior_did(prior, vla, random_scene):
    """The stages' structure, end to end: gates, highways, masks and positions line up."""
    transfer_prior(prior.state_dict(), vla)
    stack = vla.dp_head.traj_context_attn
    with torch.no_grad():
        for block in stack.blocks[::2]:
            for silent in (block.attn.to_out.weight, block.attn.to_out.bias, block.ffn.down_proj.weight):
                silent.zero_()
        stack.gate[::2] = 100.0      # keep the VL stream as it is behind a new block
    scene = random_scene(vla.config)
    noisy, level = torch.randn(2, 2, HORIZON, 10), torch.tensor([3, 70])
    with torch.no_grad():
        eps = [expert.predict(expert.observe(scene.features, scene.robot, horizon=HORIZON), noisy, level)
               for expert in (prior, vla)]
    assert torch.allclose(*eps, atol=1e-4)


def test_a_weight_that_the_prior_lacks_is_named(prior, vla):
    weights = dict(prior.state_dict())
    del weights['dp_head.final_norm.weight']
    with pytest.raises(TransferError, match=r'dp_head\.final_norm\.weight: the prior has no'):
        transfer_prior(weights, vla)


def test_a_weight_of_the_prior_without_a_place_is_named(prior, vla):
    with pytest.raises(TransferError, match='stray of the prior does not exist'):
        transfer_prior({**prior.state_dict(), 'stray': torch.zeros(1)}, vla)


def test_a_prior_of_another_size_is_refused_before_anything_is_copied(small_config, random_expert, vla):
    wide = random_expert(small_config(TrainingStage.VA_PRIOR, width=64))
    before = {key: value.clone() for key, value in vla.state_dict().items()}
    with pytest.raises(TransferError, match=r'shape \(32, 24\), the prior has \(64, 24\)'):
        transfer_prior(wide.state_dict(), vla)
    assert all(torch.equal(value, before[key]) for key, value in vla.state_dict().items())


def test_a_prior_is_no_target(prior):
    with pytest.raises(TransferError, match='the target is a va_prior'):
        transfer_prior(prior.state_dict(), prior)


@pytest.mark.parametrize(('text', 'stage'), [('0', TrainingStage.VA_PRIOR), ('va', TrainingStage.VA_PRIOR),
                                             ('1', TrainingStage.VLA), ('vla', TrainingStage.VLA)])
def test_stages_are_named_as_on_the_command_line(text, stage):
    assert TrainingStage.parse(text) is stage


def test_an_unknown_stage_lists_the_known():
    with pytest.raises(ValueError, match="stage is '2'; expected one of 0, va, va_prior, 1, vla"):
        TrainingStage.parse('2')
