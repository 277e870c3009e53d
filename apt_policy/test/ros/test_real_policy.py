"""The node with the real policy: an untrained one moves the arms, unusable weights fail configure."""

from dataclasses import replace

import pytest
import torch
import yaml

from apt_policy.core.contract import load_contract
from apt_policy.core.sample import HoldReason
from apt_policy.inference.planner import pick_device, untrained_policy
from apt_policy.inference.planner_config import PlannerConfig
from apt_policy.model.checkpoint import save_checkpoint
from apt_policy.model.config import TrainingStage
from apt_policy.model.expert import Expert
from apt_policy.model.restore import save_policy
from apt_policy.ros.policy_node import trained_planner
from apt_policy.ros.policy_params import PolicyParams, Precision


@pytest.fixture(scope='module')
def robot_contract(contract_file, tmp_path_factory):
    """The small robot in images that the VLM's patches fit; a plan lasts longer than a busy machine needs for one."""
    path = tmp_path_factory.mktemp('real') / 'small.yaml'
    path.write_text(yaml.safe_dump({**yaml.safe_load(contract_file.read_text()), 'image_size': 64, 'step_s': 0.5}))
    return path


@pytest.fixture(scope='module')
def checkpoints(robot_contract, tmp_path_factory):
    """Checkpoint folders by what is wrong with them."""
    folder = tmp_path_factory.mktemp('checkpoints')
    policy = untrained_policy(PlannerConfig(), pick_device('cpu'))
    facts = load_contract(robot_contract).policy_facts()

    def save(name, contract):
        save_policy(folder / name, policy, contract=contract, iteration=1, git_revision='test')
    save('good', facts)
    save('other robot', {**facts, 'horizon': 99})
    save('truncated', facts)
    weights = folder / 'truncated' / 'expert.safetensors'
    weights.write_bytes(weights.read_bytes()[:1000])
    prior = replace(policy.config, expert=replace(policy.config.expert, stage=TrainingStage.VA_PRIOR))
    save_checkpoint(folder / 'prior', weights=Expert(prior.expert).state_dict(), vlm_weights=None,
                    config=prior, contract=facts, iteration=1, git_revision='test')
    torch.save({'weights': policy.expert.state_dict()}, folder / 'torn')
    (folder / 'torn').write_bytes((folder / 'torn').read_bytes()[:10_000])
    return folder


@pytest.fixture
def real(bench, robot_contract):
    """The bench with the planner that the node uses by itself."""
    bench.policy._make_factory = trained_planner
    bench.stop()
    assert not bench.set(contract=str(robot_contract), denoising_steps=2)
    return bench


def test_what_the_parameters_say_reaches_the_planner(robot_contract):
    params = PolicyParams(checkpoint='weights', vlm='folder', device='cuda:1', dtype=Precision.BFLOAT16,
                          use_ema=True, denoising_steps=3, noise_scale=0.3, seed=5)
    settings, _ = trained_planner(params, load_contract(robot_contract)).args
    assert settings == PlannerConfig(
        checkpoint='weights', vlm='folder', device='cuda:1', dtype='bfloat16', use_ema=True, denoising_steps=3,
        noise_scale=0.3, seed=5)


@pytest.mark.parametrize('worker', ['process', 'thread'])
def test_an_untrained_policy_moves_the_arms_and_says_that_it_is_untrained(real, worker):
    real.log.clear()
    real.start(worker=worker, inference_timeout_s=60.0)
    real.flow()
    assert real.newest().chunks > 0
    assert real.said('no checkpoint is given: the policy is UNTRAINED') == 1


def test_a_checkpoint_for_this_robot_is_run(real, checkpoints):
    real.start(checkpoint=str(checkpoints / 'good'), inference_timeout_s=60.0)
    real.until(lambda: real.newest().chunks > 0 or real.newest().holds[HoldReason.INFERENCE_FAILED], 'a plan')
    assert real.newest().hold_reason != HoldReason.INFERENCE_FAILED, real.newest().detail


@pytest.mark.parametrize(('name', 'words'), [
    ('nowhere', 'there is no checkpoint at'), ('torn', 'corrupt'), ('truncated', 'corrupt'),
    ('prior', 'va_prior'), ('other robot', 'horizon: checkpoint has 99')])
def test_weights_that_cannot_be_used_fail_configure_with_the_reason(real, checkpoints, name, words):
    assert not real.set(checkpoint=str(checkpoints / name))
    assert not real.transition('configure')
    status = real.held(HoldReason.INACTIVE, words)
    assert name in status.detail and 'Traceback' not in status.detail
    assert real.state() == 'unconfigured'
