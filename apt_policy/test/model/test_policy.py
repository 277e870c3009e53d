import json
from dataclasses import replace

import pytest
import torch

from apt_policy.model.actions import decode_actions, encode_states, noise_to_actions
from apt_policy.model.batch import RobotState
from apt_policy.model.config import (
    PolicyConfig,
    Prediction,
    TrainingStage,
    VlmMode,
    policy_config_from_dict,
    policy_config_to_dict,
)
from apt_policy.model.perturb import (
    PUBLISHED_NOISE,
    TURN_ONLY,
    InputNoise,
    Perturbation,
    drop_cameras,
    shake_current,
    shake_history,
    turn_world,
)
from apt_policy.model.policy import ActionSampler, Policy, TrainingBatch, predict_states

HORIZON = 6
PROMPTS = ('pick up the red cube', 'go')


@pytest.fixture
def make_policy(tiny_bridge, random_expert, small_config):
    def make(stage: TrainingStage, mode: VlmMode = VlmMode.FROZEN) -> Policy:
        bridge = tiny_bridge(mode)
        expert = random_expert(small_config(stage, vlm_width=bridge.width, taps=bridge.taps))
        return Policy(PolicyConfig(expert=expert.config, vlm=bridge.config), bridge, expert)
    return make


@pytest.fixture
def robot(random_poses, random_states) -> RobotState:
    cameras = random_poses(2, 2, seed=1)
    history = random_states(2, 1, 2, seed=3)
    return RobotState(world_from_camera=cameras, world_from_ee=history[:, -1, :, :16].unflatten(-1, (4, 4)),
                      world_from_reference=cameras, history=history,
                      valid_arms=torch.tensor([[True, True], [True, False]]))


@pytest.fixture
def batch(random_images, robot, random_states) -> TrainingBatch:
    return TrainingBatch(images=random_images(PROMPTS), robot=robot, future=random_states(2, HORIZON, 2, seed=4))


def plan(policy, images, robot):
    noise = torch.randn(2, 2, HORIZON, 10, generator=torch.Generator().manual_seed(2))
    return predict_states(ActionSampler(policy.expert), policy.vlm(images), robot, noise)


@pytest.mark.parametrize('stage', TrainingStage)
def test_changing_the_instruction_changes_the_vla_but_not_the_prior(make_policy, batch, stage):
    policy = make_policy(stage)
    said, other = (plan(policy, replace(batch.images, prompts=prompts), batch.robot)
                   for prompts in (PROMPTS, ('open the drawer on the left hand side', 'stop')))
    unchanged = torch.allclose(said, other, rtol=1e-4, atol=1e-4)
    assert unchanged == (stage is TrainingStage.VA_PRIOR)


@pytest.mark.parametrize('stage', TrainingStage)
def test_a_padded_camera_changes_nothing_from_images_to_poses(make_policy, batch, stage):
    policy, images, robot = make_policy(stage), batch.images, batch.robot
    padded = replace(images, rgb=torch.cat([images.rgb, torch.rand_like(images.rgb[:, :1])], 1),
                     mask=torch.cat([images.mask, torch.zeros_like(images.mask[:, :1])], 1),
                     norm_xy=torch.cat([images.norm_xy, torch.rand_like(images.norm_xy[:, :1])], 1))
    wider = replace(robot, world_from_camera=torch.cat(
        [robot.world_from_camera, 9 * torch.ones_like(robot.world_from_camera[:, :1])], 1))
    assert torch.allclose(plan(policy, padded, wider)[0], plan(policy, images, robot)[0], rtol=1e-4, atol=1e-4)


def never_reached(config) -> set[str]:
    """Parameters that no action depends on, by construction."""
    stack = 'expert.dp_head.traj_context_attn'
    last = config.taps - 1
    # Behind the last block's keys and values nothing of the VL half is seen.
    names = {f'expert.context_encoder.proj_vl.{last}.weight', f'expert.context_encoder.proj_vl.{last}.bias',
             f'{stack}.layers.{config.blocks - 1}.norm2.norm_vl.weight'}
    if config.stage is TrainingStage.VA_PRIOR:
        names |= {f'expert.context_encoder.proj_vl.{i}.{kind}'
                  for i in range(0, config.taps, 2) for kind in ('weight', 'bias')}
    return names


@pytest.mark.parametrize('stage', TrainingStage)
@pytest.mark.parametrize('mode', VlmMode)
def test_the_loss_gives_every_trainable_parameter_a_gradient(make_policy, batch, stage, mode):
    policy = make_policy(stage, mode).train()
    if mode is VlmMode.LORA:
        with torch.no_grad():   # adapters start at B = 0, which hides A
            for name, parameter in policy.vlm.named_parameters():
                if 'lora_B' in name:
                    parameter.normal_(std=0.1)
    policy(batch, generator=torch.Generator().manual_seed(0)).total.backward()
    silent = {name for name, p in policy.named_parameters()
              if p.requires_grad and (p.grad is None or not p.grad.any()) and name.startswith('expert.')}
    assert silent == never_reached(policy.config.expert)
    # The last tap feeds the last gate, which nothing sees; the layers up to the tap before it learn.
    deepest = 3 * (policy.config.expert.taps - (2 if stage is TrainingStage.VLA else 3))
    for name, parameter in policy.vlm.named_parameters():
        layer = name.split('language_model.layers.')[-1].split('.')[0]
        if parameter.requires_grad and layer.isdigit() and int(layer) <= deepest:
            assert parameter.grad is not None and parameter.grad.any(), name


@pytest.mark.parametrize('stage', TrainingStage)
def test_the_last_gate_rows_are_the_only_ones_without_gradient(make_policy, batch, stage):
    policy = make_policy(stage).train()
    policy(batch, generator=torch.Generator().manual_seed(0)).total.backward()
    moved = policy.expert.dp_head.traj_context_attn.gate.grad.any(-1).tolist()
    assert moved == ([True, True, True, False] if stage is TrainingStage.VLA else [False, True, False, False])


def test_the_zero_initialised_layers_learn_from_the_first_step(tiny_bridge, small_config, batch):
    """A fresh expert: its head is zero, so at first nothing but the head itself gets a gradient."""
    bridge = tiny_bridge()
    config = small_config(vlm_width=bridge.width, taps=bridge.taps)
    policy = Policy(PolicyConfig(expert=config, vlm=bridge.config), bridge).train()
    optimizer = torch.optim.AdamW(policy.expert.parameters(), lr=1e-2)
    for expected in (False, True):
        optimizer.zero_grad()
        policy(batch, generator=torch.Generator().manual_seed(0)).total.backward()
        head = policy.expert.dp_head
        assert head.act_head.weight.grad.any()
        assert bool(head.traj_enc[0].weight.grad.any()) == expected
        optimizer.step()


def test_a_few_steps_on_one_batch_lower_the_loss(tiny_bridge, small_config, batch):
    bridge = tiny_bridge()
    torch.manual_seed(0)
    config = small_config(vlm_width=bridge.width, taps=bridge.taps)
    policy = Policy(PolicyConfig(expert=config, vlm=bridge.config), bridge).train()
    features = policy.vlm(batch.images)
    optimizer = torch.optim.AdamW(policy.expert.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = policy.loss(features, batch.robot, batch.future, generator=torch.Generator().manual_seed(1)).total
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_the_loss_is_repeatable_from_its_generator(make_policy, batch):
    policy = make_policy(TrainingStage.VLA)
    perturbation = Perturbation(noise=PUBLISHED_NOISE, camera_dropout=0.5)
    first, again, other = (policy(batch, perturbation, torch.Generator().manual_seed(seed)).total.item()
                           for seed in (1, 1, 2))
    assert first == again != other


def test_the_loss_does_not_see_how_the_world_is_turned(make_policy, batch):
    policy = make_policy(TrainingStage.VLA)
    features = policy.vlm(batch.images)
    robot, future = turn_world(batch.robot, batch.future, features.camera_valid,
                               torch.Generator().manual_seed(9))
    assert not torch.allclose(future, batch.future, atol=0.1)
    still = Perturbation(turn_world=False)
    losses = [policy.loss(features, r, f, still, torch.Generator().manual_seed(4)).total
              for r, f in ((batch.robot, batch.future), (robot, future))]
    assert torch.isclose(*losses, rtol=1e-4)


def test_bfloat16_autocast_trains_and_stays_near_float32(make_policy, batch):
    policy = make_policy(TrainingStage.VLA).train()
    exact = policy(batch, generator=torch.Generator().manual_seed(0)).total
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rough = policy(batch, generator=torch.Generator().manual_seed(0)).total
    assert rough.dtype == torch.float32
    assert torch.isclose(rough, exact, rtol=0.05)
    rough.backward()
    assert policy.expert.dp_head.traj_enc[0].weight.grad.any()


def test_an_expert_in_bfloat16_predicts_near_float32(make_policy, batch):
    policy = make_policy(TrainingStage.VLA)
    exact = plan(policy, batch.images, batch.robot)
    policy.expert.to(torch.bfloat16)
    rough = plan(policy, batch.images, batch.robot)
    assert rough.dtype == torch.float32
    valid = batch.robot.valid_arms
    difference = (rough - exact).transpose(1, 2)[valid].abs()
    assert 0 < float(difference.median()) < 0.05 * float(exact.transpose(1, 2)[valid].abs().max())


def test_camera_dropout_takes_one_valid_camera_and_never_the_last(random_images):
    images = random_images(('a',) * 400, cameras=3, side=32)
    mask = images.mask.clone()
    mask[:, 0] = False
    mask[200:, 1] = False
    dropped = drop_cameras(replace(images, mask=mask), 0.5, torch.Generator().manual_seed(0)).camera_valid
    assert dropped[200:].tolist() == [[False, False, True]] * 200
    left = dropped[:200, 1:].sum(-1)
    assert set(left.tolist()) == {1, 2} and 70 < int((left == 1).sum()) < 130
    assert 30 < int((~dropped[:200, 1]).sum()) < 70, 'every camera has its turn'


def test_input_noise_has_the_sizes_it_was_given(robot):
    many = RobotState(**{name: getattr(robot, name)[:1].expand(3000, *getattr(robot, name).shape[1:])
                         for name in RobotState.__dataclass_fields__})
    noise, random = InputNoise(history_translation=0.1, history_rotation=0.2, history_gripper=0.3,
                               current_translation=0.4), torch.Generator().manual_seed(0)
    shift = shake_current(many, noise, random).world_from_ee - many.world_from_ee
    assert torch.isclose(shift[..., :3, 3].std(), torch.tensor(0.4), rtol=0.05)
    assert torch.equal(shift[..., :3, :3], torch.zeros_like(shift[..., :3, :3]))
    encoded = shake_history(torch.zeros(3000, 2, 1, 10), noise, random)
    for part, size in ((slice(0, 3), 0.1), (slice(3, 9), 0.2), (slice(9, 10), 0.3)):
        assert torch.isclose(encoded[..., part].std(), torch.tensor(size), rtol=0.05)


def test_no_noise_is_the_default(robot):
    encoded = torch.ones(2, 2, 1, 10)
    assert torch.equal(shake_history(encoded, InputNoise(), torch.Generator().manual_seed(0)), encoded)
    assert torch.equal(shake_current(robot, InputNoise()).world_from_ee, robot.world_from_ee)


def without_places(expert):
    """Absolute positions are in metres whatever noise is measured in."""
    with torch.no_grad():
        for parameter in expert.dp_head.abs_pos_enc.parameters():
            parameter.zero_()
    return expert


def test_smaller_noise_on_translations_is_unit_noise_on_a_smaller_scale(random_expert, small_config, random_scene,
                                                                        tiny_bridge, random_states):
    scale, bridge = 0.05, tiny_bridge()
    sizes = {'vlm_width': bridge.width, 'taps': bridge.taps}
    unit, fine = (without_places(random_expert(replace(small_config(**sizes), translation_noise=size)))
                  for size in (1.0, scale))
    policies = {expert: Policy(PolicyConfig(expert=expert.config, vlm=bridge.config), bridge, expert)
                for expert in (unit, fine)}
    scene = random_scene(unit.config)
    noise = torch.randn(2, 2, HORIZON, 10, generator=torch.Generator().manual_seed(3))
    sampled = {expert: (sampler := ActionSampler(expert)).sample(
        sampler.observe(scene.features, scene.robot, horizon=HORIZON), noise) for expert in (unit, fine)}
    torch.testing.assert_close(sampled[fine], noise_to_actions(sampled[unit], scale), rtol=1e-4, atol=1e-4)

    future = encode_states(random_states(2, HORIZON, 2, seed=4), scene.robot)
    losses = {}
    for expert, policy in policies.items():
        scaled = decode_actions(noise_to_actions(future, expert.config.translation_noise), scene.robot)
        losses[expert] = policy.loss(scene.features, scene.robot, scaled, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(losses[fine].position, losses[unit].position, rtol=1e-3, atol=1e-4)


def test_an_expert_that_predicts_actions_is_measured_against_them(small_config, random_scene, tiny_bridge,
                                                                  random_states):
    """A fresh head says 0: the loss is then the size of the actions, in the units of the noise."""
    scale, bridge = 0.05, tiny_bridge()
    config = replace(small_config(vlm_width=bridge.width, taps=bridge.taps), prediction=Prediction.ACTIONS,
                     translation_noise=scale)
    scene, future = random_scene(config), random_states(2, HORIZON, 2, seed=4)
    clean = encode_states(future, scene.robot)
    policy = Policy(PolicyConfig(expert=config, vlm=bridge.config), bridge)
    loss = policy.loss(scene.features, scene.robot, future, replace(TURN_ONLY, turn_world=False),
                       generator=torch.Generator().manual_seed(5))
    found = torch.stack([loss.position, loss.rotation, loss.gripper])
    torch.testing.assert_close(found, torch.stack([
        clean[..., :3].abs().mean() / scale, clean[..., 3:9].abs().mean(), clean[..., 9].abs().mean()]))


def test_what_an_expert_predicts_is_kept_with_it(small_config):
    config = PolicyConfig(expert=replace(small_config(), prediction=Prediction.ACTIONS, translation_noise=0.1))
    kept = policy_config_to_dict(config)
    assert policy_config_from_dict(json.loads(json.dumps(kept))) == config
    for name in ('prediction', 'translation_noise'):
        del kept['expert'][name]
    older = policy_config_from_dict(kept).expert
    assert (older.prediction, older.translation_noise) == (Prediction.NOISE, 1.0), 'checkpoints that do not say'


@pytest.mark.parametrize('size', [0.0, -0.1, float('nan')])
def test_noise_without_a_size_is_refused(small_config, size):
    with pytest.raises(ValueError, match='translation_noise is .* expected more than 0'):
        replace(small_config(), translation_noise=size)
