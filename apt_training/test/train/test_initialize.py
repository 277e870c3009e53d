"""Initial weights: from a prior with its transfer report, another run, another robot, a published file."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from apt_policy.model.checkpoint import CheckpointError, read_checkpoint
from apt_policy.model.config import ExpertSize, TrainingStage
from apt_policy.model.stages import Transfer, TransferError
from apt_training.train.config import ConfigError
from apt_training.train.initialize import GATE, InitFrom, initialize_policy
from apt_training.train.run_folder import RunFolder
from apt_training.train.transfer_report import describe_transfer, read_transfer_report, write_transfer_report

CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def prior(train_here, tmp_path_factory):
    folder = tmp_path_factory.mktemp('prior')
    train_here(folder=folder, iterations=2)
    return folder / 'iter_000002'


@pytest.fixture
def begin(synthetic, tmp_path):
    def start(checkpoint, stage='1', facts=None, **changes):
        config = replace(synthetic.make_config({'iterations': 2, 'stage': stage}), **changes)
        return initialize_policy(config, InitFrom(checkpoint=checkpoint), RunFolder(tmp_path / 'run'),
                                 contract=facts or synthetic.FACTS, device=CPU)
    return start


def test_a_vla_starts_from_every_weight_of_its_prior(begin, prior):
    initialized = begin(prior)
    weights, got = load_file(prior / 'expert.safetensors'), initialized.policy.expert.state_dict()
    assert set(initialized.transfer.copied.values()) == set(weights)
    assert all(torch.equal(got[key], weights[source]) for key, source in initialized.transfer.copied.items())
    assert set(initialized.transfer.copied) | set(initialized.transfer.new) == set(got)
    assert describe_transfer(initialized.transfer) == (f'transfer: {len(weights)} weights copied from the prior, '
                                                       f'{len(got) - len(weights)} new: blocks 0, 2')


def test_blocks_only_restarts_the_rest_as_the_released_code_does(begin, prior):
    transfer = begin(prior, transfer=Transfer.BLOCKS_ONLY).transfer
    assert all('.traj_context_attn.layers.' in key for key in transfer.copied)
    assert 'dp_head.act_head.weight' in transfer.new and 'other weights' in describe_transfer(transfer)


def test_the_transfer_report_is_saved_beside_the_run(train_here, prior, tmp_path):
    train_here(folder=tmp_path, stage='1', iterations=1, checkpoint=str(prior))
    saved = json.loads((tmp_path / 'transfer.json').read_text())
    assert set(saved['copied'].values()) == set(load_file(prior / 'expert.safetensors'))
    write_transfer_report(tmp_path / 'again', read_transfer_report(tmp_path))
    assert (tmp_path / 'again' / 'transfer.json').read_text() == (tmp_path / 'transfer.json').read_text()


def test_a_frozen_prior_stays_as_it_was_while_the_new_blocks_learn(train_here, prior, tmp_path):
    spec = {'folder': tmp_path, 'stage': '1', 'freeze_prior': True, 'checkpoint': str(prior)}
    train_here(iterations=3, **spec)
    train_here(iterations=4, resume=True, **spec)
    transfer, before = read_transfer_report(tmp_path), load_file(prior / 'expert.safetensors')
    after = load_file(tmp_path / 'iter_000004' / 'expert.safetensors')
    assert all(torch.equal(after[key], before[source]) for key, source in transfer.copied.items() if key != GATE)
    assert any(after[key].any() for key in transfer.new if key.endswith('attn.to_out.weight'))


def test_freezing_needs_a_prior(begin):
    with pytest.raises(ConfigError, match='freeze_prior is set but the run has no prior'):
        begin(None, freeze_prior=True)


def test_a_vla_is_no_prior(begin, train_here, tmp_path):
    train_here(folder=tmp_path / 'vla', stage='1', iterations=1)
    with pytest.raises(CheckpointError, match='holds a vla, expected a va_prior'):
        begin(tmp_path / 'vla' / 'iter_000001', stage='0')


def test_an_expert_of_another_size_is_named(begin, prior):
    with pytest.raises(ConfigError, match=r'width 192 with 3 heads; recipe invented has 384 with 6'):
        begin(prior, expert=ExpertSize.SMALL)


def test_a_prior_of_other_noise_is_refused(begin, prior):
    with pytest.raises(ConfigError, match=r'predict noise under noise of 1 m on translations, recipe invented '
                       r'trains to predict noise under noise of 0\.1 m'):
        begin(prior, translation_noise=0.1)


def test_the_noise_of_a_recipe_is_that_of_its_expert(begin):
    assert begin(None, translation_noise=0.1).policy.expert.config.translation_noise == 0.1


def test_a_published_file_is_a_start_for_another_robot(begin, prior, tmp_path, synthetic):
    """Weights do not depend on the number of cameras and arms."""
    weights = load_file(prior / 'expert.safetensors')
    torch.save({'weights': weights, 'current_iters': 40, 'scaler': {}}, tmp_path / 'ckpt_latest.pt')
    other = {**synthetic.FACTS, 'arms': ['only'], 'cameras': ['a', 'b', 'c']}
    for stage in ('0', '1'):
        policy = begin(tmp_path / 'ckpt_latest.pt', stage=stage, facts=other).policy
        assert torch.equal(policy.expert.state_dict()['dp_head.act_head.weight'], weights['dp_head.act_head.weight'])


def test_another_robot_is_logged_in_a_new_run_and_refused_when_resuming(begin, prior, train_here, synthetic, caplog):
    begin(prior, stage='0', facts={**synthetic.FACTS, 'arms': ['only']})
    assert "arms: checkpoint has ['left', 'right'], robot has ['only']" in caplog.text
    config = synthetic.make_config({'iterations': 3})
    with pytest.raises(CheckpointError, match='was trained for another robot'):
        initialize_policy(config, InitFrom(resume=True), RunFolder(prior.parent),
                          contract={**synthetic.FACTS, 'arms': ['only']}, device=CPU)


def test_a_prior_with_a_missing_key_is_refused_naming_it(begin, prior, tmp_path):
    weights = load_file(prior / 'expert.safetensors')
    del weights['dp_head.final_norm.weight']
    torch.save({'weights': weights}, tmp_path / 'ckpt_latest.pt')
    with pytest.raises(TransferError, match='the prior has no dp_head.final_norm.weight'):
        begin(tmp_path / 'ckpt_latest.pt')


def test_a_tuned_vlm_is_not_lost_silently(train_here, tmp_path, synthetic):
    train_here(folder=tmp_path / 'lora', stage='1', vlm_mode='lora', iterations=1)
    with pytest.raises(ConfigError, match='give --vlm-mode lora'):
        train_here(folder=tmp_path / 'lora', stage='1', iterations=2, resume=True)
    assert read_checkpoint(tmp_path / 'lora' / 'iter_000001').expert.stage is TrainingStage.VLA
