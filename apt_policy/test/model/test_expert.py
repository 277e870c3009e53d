from dataclasses import replace

import pytest
import torch

from apt_policy.model.batch import RobotState, VlFeatures
from apt_policy.model.config import TrainingStage
from apt_policy.model.diffusion import denoise
from apt_policy.model.frames import invert_pose, move_robot, move_states
from apt_policy.model.policy import ActionSampler, predict_states

HORIZON = 6
LEVEL = torch.tensor([37, 81])

SIZES = {
    'VLA': {},
    'VA prior': {'stage': TrainingStage.VA_PRIOR},
    'heads of 8': {'width': 32, 'heads': 4},
    'heads of 64, six taps': {'width': 64, 'heads': 1, 'taps': 6},
    'prior of two taps': {'stage': TrainingStage.VA_PRIOR, 'taps': 2},
    'one arm': {'arms': 1},
    'three arms, three history states': {'arms': 3, 'history': 3},
    'prior, four arms, two history states': {'stage': TrainingStage.VA_PRIOR, 'arms': 4, 'history': 2},
}


@pytest.fixture(params=SIZES.values(), ids=SIZES.keys())
def case(request, small_config, random_expert, random_scene):
    """Expert and scene; a masked vision token, left padding, an absent arm, a masked camera."""
    sizes = dict(request.param)
    scene_sizes = {key: sizes.pop(key) for key in ('arms', 'history') if key in sizes}
    expert = random_expert(small_config(**sizes))
    return expert, spoiled(random_scene(expert.config, **scene_sizes))


def spoiled(scene):
    features, robot = scene.features, scene.robot
    attended, is_vision = features.attention_mask.clone(), features.is_vision.clone()
    attended[0, 3] = False                  # a vision token without pixels
    attended[1, :3] = False                 # left padding
    is_vision[1] = False
    is_vision[1, 6:10] = True               # one of two cameras
    camera_valid = torch.tensor([[True, True], [False, True]])
    valid_arms = robot.valid_arms.clone()
    if valid_arms.shape[1] > 1:
        valid_arms[0, 1] = False
    return type(scene)(replace(features, attention_mask=attended, is_vision=is_vision,
                               camera_valid=camera_valid), replace(robot, valid_arms=valid_arms))


def unit_noise(robot: RobotState, samples: int = 1, seed: int = 9) -> torch.Tensor:
    batch, arms = robot.valid_arms.shape
    return torch.randn(batch * samples, arms, HORIZON, 10, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def eps_of(expert, features: VlFeatures, robot: RobotState, noisy=None) -> torch.Tensor:
    context = expert.observe(features, robot, horizon=HORIZON)
    noisy = unit_noise(robot) if noisy is None else noisy
    return expert.predict(context, noisy, LEVEL[:len(noisy)])


def same(a, b, tolerance=2e-5):
    assert torch.isfinite(a).all()
    return float((a - b).abs().max()) < tolerance * max(1.0, float(b.abs().max()))


def test_the_cached_path_equals_the_recomputing_one(case, uncached):
    expert, scene = case
    noisy = unit_noise(scene.robot)
    with torch.no_grad():
        plain = uncached.observe_uncached(expert, scene.features, scene.robot)
        expected = uncached.predict_uncached(expert, plain, noisy, LEVEL)
    assert same(eps_of(expert, scene.features, scene.robot, noisy), expected)


def test_the_sampler_equals_the_recomputing_one(case, uncached):
    expert, scene = case
    sampler, noise = ActionSampler(expert), unit_noise(scene.robot)
    with torch.no_grad():
        plain = uncached.observe_uncached(expert, scene.features, scene.robot)
        expected = denoise(lambda x, step: uncached.predict_uncached(
            expert, plain, x, sampler.scheduler.timesteps[step].expand(2)), noise, sampler.scheduler)
    got = sampler.sample(sampler.observe(scene.features, scene.robot, horizon=HORIZON), noise)
    assert same(got, expected)


def test_several_samples_come_from_one_cache(case):
    expert, scene = case
    vl_runs = []
    for block in expert.dp_head.traj_context_attn.blocks:
        block.norm1.norm_vl.register_forward_hook(lambda *call: vl_runs.append(call))
    sampler, noise = ActionSampler(expert), unit_noise(scene.robot, samples=3)
    context = sampler.observe(scene.features, scene.robot, horizon=HORIZON)
    assert len(vl_runs) == expert.config.blocks
    together = sampler.sample(context, noise)
    assert len(vl_runs) == expert.config.blocks, 'sampling ran the VL half again'
    one_by_one = [sampler.sample(context, noise[i::3]) for i in range(3)]
    assert same(together, torch.stack(one_by_one, dim=1).flatten(0, 1))


def test_sampling_leaves_the_cache_as_it_was(case):
    expert, scene = case
    sampler = ActionSampler(expert)
    context = sampler.observe(scene.features, scene.robot, horizon=HORIZON)
    first = sampler.sample(context, unit_noise(scene.robot))
    sampler.sample(context, unit_noise(scene.robot, seed=10))
    assert torch.equal(sampler.sample(context, unit_noise(scene.robot)), first)


def test_absent_arms_change_nothing(case):
    expert, scene = case
    robot = scene.robot
    expected = eps_of(expert, scene.features, robot)
    valid = robot.valid_arms
    garbled = replace(robot, world_from_ee=garble(robot.world_from_ee, ~valid),
                      world_from_reference=garble(robot.world_from_reference, ~valid),
                      history=garble(robot.history, ~valid[:, None].expand(robot.history.shape[:3])))
    noisy = torch.where(valid[..., None, None], unit_noise(robot), 100.0)
    assert same(eps_of(expert, scene.features, garbled, noisy)[valid], expected[valid])


def test_an_arm_that_is_padding_in_a_larger_batch_changes_nothing(small_config, random_expert, random_scene):
    expert = random_expert(small_config())
    scene = random_scene(expert.config, arms=2)
    robot = scene.robot
    wider = RobotState(
        world_from_camera=robot.world_from_camera, world_from_ee=pad(robot.world_from_ee, 1),
        world_from_reference=pad(robot.world_from_reference, 1), history=pad(robot.history, 2),
        valid_arms=torch.tensor([[True, True, False]] * 2))
    noisy = unit_noise(wider)
    got = eps_of(expert, scene.features, wider, noisy)[:, :2]
    assert same(got, eps_of(expert, scene.features, robot, noisy[:, :2]))


def test_padded_cameras_change_nothing(case):
    expert, scene = case
    features, robot = scene.features, scene.robot
    expected = eps_of(expert, features, robot)
    wider = replace(features, norm_xy=pad(features.norm_xy, 1),
                    camera_valid=torch.cat([features.camera_valid, torch.zeros(2, 1, dtype=torch.bool)], 1))
    moved = replace(robot, world_from_camera=pad(garble(robot.world_from_camera, ~features.camera_valid), 1))
    assert same(eps_of(expert, wider, moved), expected)


def test_what_stands_in_padding_and_masked_tokens_changes_nothing(case):
    expert, scene = case
    features = scene.features
    hidden = ~features.attention_mask
    garbled = replace(features, inputs_embeds=garble(features.inputs_embeds, hidden),
                      hidden_states=garble(features.hidden_states, hidden.expand(
                          features.hidden_states.shape[:3])))
    assert same(eps_of(expert, garbled, scene.robot), eps_of(expert, features, scene.robot))


def test_the_world_frame_does_not_matter(case, random_poses):
    expert, scene = case
    sampler, noise = ActionSampler(expert), unit_noise(scene.robot)
    new_from_old = random_poses(2, seed=40)
    new_from_old[:, :3, 3] *= 20
    states = predict_states(sampler, scene.features, scene.robot, noise)
    moved = predict_states(sampler, scene.features, move_robot(new_from_old, scene.robot), noise)
    back = move_states(invert_pose(new_from_old), moved)
    valid = scene.robot.valid_arms
    assert same(back.transpose(1, 2)[valid], states.transpose(1, 2)[valid], tolerance=1e-3)


def test_a_batch_with_left_padding_equals_single_samples(small_config, random_expert, random_scene):
    expert = random_expert(small_config())
    short = random_scene(expert.config, batch=1, text=3, seed=1)
    long = random_scene(expert.config, batch=1, text=8, seed=2)
    features = VlFeatures(
        inputs_embeds=torch.cat([left(short.features.inputs_embeds, 5, 1), long.features.inputs_embeds]),
        hidden_states=torch.cat([left(short.features.hidden_states, 5, 2), long.features.hidden_states], 1),
        attention_mask=torch.cat([left(short.features.attention_mask, 5, 1), long.features.attention_mask]),
        is_vision=torch.cat([left(short.features.is_vision, 5, 1), long.features.is_vision]),
        norm_xy=torch.cat([short.features.norm_xy, long.features.norm_xy]),
        camera_valid=torch.ones(2, 2, dtype=torch.bool))
    robot = RobotState(**{name: torch.cat([getattr(short.robot, name), getattr(long.robot, name)])
                          for name in RobotState.__dataclass_fields__})
    noisy = unit_noise(robot)
    together = eps_of(expert, features, robot, noisy)
    assert same(together[:1], eps_of(expert, short.features, short.robot, noisy[:1]))
    with torch.no_grad():
        alone = expert.predict(expert.observe(long.features, long.robot, horizon=HORIZON),
                                     noisy[1:], LEVEL[1:])
    assert same(together[1:], alone)


@pytest.mark.parametrize('stage', TrainingStage)
def test_a_sample_with_nothing_to_see_is_finite(small_config, random_expert, random_scene, stage, uncached):
    expert = random_expert(small_config(stage))
    scene = random_scene(expert.config)
    features = replace(scene.features, attention_mask=torch.zeros_like(scene.features.attention_mask),
                       camera_valid=torch.zeros_like(scene.features.camera_valid))
    robot = replace(scene.robot, valid_arms=torch.zeros_like(scene.robot.valid_arms))
    noisy = unit_noise(robot)
    with torch.no_grad():
        plain = uncached.observe_uncached(expert, features, robot)
        expected = uncached.predict_uncached(expert, plain, noisy, LEVEL)
    assert same(eps_of(expert, features, robot, noisy), expected)


@pytest.mark.parametrize('stage', TrainingStage)
def test_only_the_vla_reads_language(small_config, random_expert, random_scene, stage):
    expert = random_expert(small_config(stage))
    scene = random_scene(expert.config)
    language = ~scene.features.is_vision
    spoken = replace(scene.features, inputs_embeds=garble(scene.features.inputs_embeds, language),
                     hidden_states=garble(scene.features.hidden_states, language.expand(
                         scene.features.hidden_states.shape[:3])))
    a, b = eps_of(expert, scene.features, scene.robot), eps_of(expert, spoken, scene.robot)
    assert same(a, b, 1e-6) == (stage is TrainingStage.VA_PRIOR)


def test_the_cache_knows_neither_actions_nor_noise_level(case, uncached):
    """So one cache serves all steps: the plain path's VL rows are the same at any level and noise."""
    expert, scene = case
    stack, rows = expert.dp_head.traj_context_attn, []
    length = scene.features.attention_mask.shape[1]
    stack.blocks[-1].ffn.register_forward_hook(lambda _, __, out: rows.append(out[:, :length]))
    with torch.no_grad():
        plain = uncached.observe_uncached(expert, scene.features, scene.robot)
        uncached.predict_uncached(expert, plain, unit_noise(scene.robot), LEVEL)
        uncached.predict_uncached(expert, plain, 9 * unit_noise(scene.robot, seed=3), LEVEL.flip(0))
    seen = scene.features.attention_mask
    assert torch.equal(rows[0][seen], rows[1][seen])


def test_a_fresh_expert_predicts_no_noise(small_config, random_scene):
    from apt_policy.model.expert import Expert
    expert = Expert(small_config())
    scene = random_scene(expert.config)
    assert torch.all(eps_of(expert, scene.features, scene.robot) == 0)


def test_five_arms_are_refused(small_config, random_expert, random_scene):
    expert = random_expert(small_config())
    scene = random_scene(expert.config, arms=5)
    with pytest.raises(ValueError, match='the robot has 5 arms; the expert supports at most 4'):
        eps_of(expert, scene.features, scene.robot)


def test_features_of_another_vlm_are_refused(small_config, random_expert, random_scene):
    expert, scene = random_expert(small_config()), random_scene(small_config(taps=6))
    with pytest.raises(ValueError, match='the VLM gives 6 taps of width 24; this expert was built for 4'):
        eps_of(expert, scene.features, scene.robot)


def garble(x, where):
    """Other finite numbers where ``where`` (over the leading axes) holds."""
    spread = where.view(*where.shape, *(1 for _ in range(x.ndim - where.ndim)))
    return torch.where(spread, torch.full_like(x, 3.7), x)


def pad(x, axis):
    """One more entry of other numbers at the end of ``axis``."""
    extra = torch.full_like(x.narrow(axis, 0, 1), 2.5)
    return torch.cat([x, extra], dim=axis)


def left(x, count, axis):
    """``count`` entries of zero (or False) in front."""
    shape = list(x.shape)
    shape[axis] = count
    return torch.cat([x.new_zeros(shape), x], dim=axis)
