"""The real planner over the tiny VLM, from observation to chunk."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from apt_policy.core.contract import RobotContract, load_contract
from apt_policy.core.images import letterbox
from apt_policy.core.prompt import PromptError
from apt_policy.core.sample import ArmState, Chunk, Observation, View
from apt_policy.inference.planner import PlanError, load_planner, pick_dtype
from apt_policy.inference.planner_config import PlannerConfig
from apt_policy.inference.ports import ChunkPrefix
from apt_policy.model.checkpoint import CheckpointError, read_checkpoint
from apt_policy.model.config import TINY_VLM, ExpertConfig, PolicyConfig, TrainingStage, VlmConfig
from apt_policy.model.expert import Expert
from apt_policy.model.policy import Policy
from apt_policy.model.restore import save_policy
from apt_policy.model.vlm.bridge import build_bridge
from apt_policy.model.vlm.load import VlmError

CONFIG = Path(__file__).resolve().parents[3] / 'apt_bringup' / 'config' / 'aloha_sim.yaml'
STEP_NS = 100_000_000


@pytest.fixture(scope='module')
def contract() -> RobotContract:
    """The simulated ALOHA with smaller images, for speed."""
    return replace(load_contract(CONFIG), image_size=64)


def pose(seed: int, at: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    matrix[:3, 3] = at
    return matrix


@pytest.fixture(scope='module')
def observation(contract) -> Observation:
    """Four letterboxed cameras and two arms."""
    random = np.random.default_rng(0)
    pinhole = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    views = []
    for i in range(4):
        boxed = letterbox(random.integers(0, 256, (480, 640, 3), dtype=np.uint8), pinhole, contract.image_size)
        views.append(View(rgb=boxed.rgb, mask=boxed.mask, intrinsics=boxed.intrinsics, stamp_ns=0,
                          world_from_camera=pose(i, (0.1 * i, 0.5, 0.6))))
    arms = (ArmState(world_from_ee=pose(8, (-0.2, 0.5, 0.2)), gripper=0.3),
            ArmState(world_from_ee=pose(9, (0.2, 0.5, 0.2)), gripper=0.8))
    return Observation(stamp_ns=5_000, prompt='pick up the red cube', views=tuple(views), history=(arms,))


@pytest.fixture(scope='module')
def trained(contract, tmp_path_factory) -> Path:
    """A checkpoint with random numbers everywhere, as if it had learned something."""
    bridge = build_bridge(VlmConfig(name=TINY_VLM, dtype='float32'), torch.device('cpu'))
    config = ExpertConfig(stage=TrainingStage.VLA, width=32, heads=2, vlm_width=bridge.width, taps=bridge.taps)
    expert, random = Expert(config), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in expert.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * parameter.shape[-1] ** -0.5)
    folder = tmp_path_factory.mktemp('checkpoints') / 'last'
    save_policy(folder, Policy(PolicyConfig(expert=config, vlm=bridge.config), bridge, expert),
                contract=contract.policy_facts(), iteration=3, git_revision='abc')
    return folder


@pytest.fixture(scope='module')
def make_planner(contract, trained):
    def make(**settings):
        usual = {'checkpoint': str(trained), 'device': 'cpu', 'denoising_steps': 5}
        return load_planner(PlannerConfig(**{**usual, **settings}), contract)
    return make


@pytest.fixture(scope='module')
def planner(make_planner):
    return make_planner()


def plan(planner, observation, *, epoch=1, prefix=None) -> Chunk:
    return planner.plan(observation, epoch=epoch, prefix=prefix)


def test_a_plan_is_a_chunk_of_world_poses(planner, observation):
    chunk = plan(planner, observation, epoch=7)
    assert (chunk.stamp_ns, chunk.step_ns, chunk.epoch, chunk.prompt) == (5_000, STEP_NS, 7, observation.prompt)
    assert chunk.world_from_ee.shape == (32, 2, 4, 4) and chunk.world_from_ee.dtype == np.float64
    assert chunk.gripper.shape == (32, 2) and chunk.valid_arms.tolist() == [True, True]
    rotation = chunk.world_from_ee[..., :3, :3]
    assert np.allclose(rotation @ np.swapaxes(rotation, -1, -2), np.eye(3), atol=1e-5)
    assert np.allclose(chunk.world_from_ee[..., 3, :], [0, 0, 0, 1])
    assert chunk.inference_s > 0


def test_plans_repeat_with_the_seed_and_differ_from_draw_to_draw(make_planner, observation):
    runs = []
    for seed in (1, 1, 2):
        planner = make_planner(seed=seed)
        planner.warm_up()
        runs.append([plan(planner, observation).gripper for _ in range(2)])
    assert np.array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0][0], runs[0][1]) and not np.allclose(runs[0][0], runs[2][0])


def test_without_noise_the_same_observation_gives_the_same_plan(make_planner, observation):
    planner, other = make_planner(noise_scale=0.0), make_planner(noise_scale=0.0, seed=5)
    once = plan(planner, observation).gripper
    assert np.array_equal(once, plan(planner, observation).gripper)
    assert np.array_equal(once, plan(other, observation).gripper)


def test_less_noise_leaves_plans_nearer_to_the_middle(make_planner, observation):
    middle = plan(make_planner(noise_scale=0.0), observation).gripper
    apart = [np.abs(plan(make_planner(noise_scale=scale), observation).gripper - middle).mean()
             for scale in (0.1, 0.5, 1.0)]
    assert apart == sorted(apart) and apart[0] > 0.0


@pytest.mark.parametrize('scale', [-0.1, 1.1, float('nan')])
def test_a_scale_of_noise_that_cannot_be_is_named(scale):
    with pytest.raises(ValueError, match=rf'noise_scale is {scale}; expected 0 '):
        PlannerConfig(noise_scale=scale)


def test_warming_up_does_not_change_the_first_plan(make_planner, observation):
    cold, warm = make_planner(), make_planner()
    warm.warm_up()
    assert np.allclose(plan(cold, observation).gripper, plan(warm, observation).gripper, atol=1e-4)


def test_committed_rows_are_kept_for_present_arms_and_planned_around(make_planner, observation):
    prefix = ChunkPrefix(world_from_ee=np.stack([[pose(k, (0.1, 0.5, 0.2 + 0.01 * k))] * 2 for k in range(3)]),
                          gripper=np.full((3, 2), 0.25), valid_arms=np.array([True, False]))
    free, held = plan(make_planner(), observation), plan(make_planner(), observation, prefix=prefix)
    assert np.allclose(held.world_from_ee[:3, 0], prefix.world_from_ee[:, 0], atol=1e-5)
    assert np.allclose(held.gripper[:3, 0], 0.25, atol=1e-5)
    assert not np.allclose(held.world_from_ee[:3, 1], prefix.world_from_ee[:, 1], atol=1e-2)
    assert not np.allclose(held.gripper[3:], free.gripper[3:], atol=1e-4)


def test_the_plan_follows_the_robot_when_the_world_is_moved(make_planner, observation):
    shift = np.eye(4)
    shift[:3, 3] = (3.0, -2.0, 1.0)
    moved = replace(
        observation,
        views=tuple(replace(view, world_from_camera=shift @ view.world_from_camera) for view in observation.views),
        history=(tuple(replace(arm, world_from_ee=shift @ arm.world_from_ee) for arm in observation.arms),))
    here, there = plan(make_planner(), observation), plan(make_planner(), moved)
    largest = np.abs(here.world_from_ee).max()
    assert np.allclose(shift @ here.world_from_ee, there.world_from_ee, atol=1e-3 * largest)


def test_a_plan_needs_only_one_arm_and_one_reference_camera(planner, observation):
    views = (observation.views[0], None, None, None)
    chunk = plan(planner, replace(observation, views=views, history=((observation.arms[0], None),)))
    assert chunk.valid_arms.tolist() == [True, False] and np.isfinite(chunk.world_from_ee).all()


def test_a_gap_in_the_past_is_bridged(contract, make_planner, trained, observation):
    remembers = replace(contract, history=3)
    facts = remembers.policy_facts()
    assert facts['history'] == 3
    planner = load_planner(PlannerConfig(device='cpu'), remembers)
    history = ((None, observation.arms[1]), (None, None), observation.arms)
    chunk = planner.plan(replace(observation, history=history), epoch=1, prefix=None)
    assert np.isfinite(chunk.world_from_ee).all()


@pytest.mark.parametrize(('change', 'message'), [
    (lambda o: replace(o, views=o.views[:3]),
     r'the observation has \(3, 2, 1\) cameras, arms and history states; .* has \(4, 2, 1\)'),
    (lambda o: replace(o, views=(None, *o.views[1:2], None, o.views[3])),
     'left: none of its reference cameras cam_left_wrist, cam_high has an image'),
    (lambda o: replace(o, views=(replace(o.views[0], rgb=np.zeros((32, 32, 3), np.uint8)), *o.views[1:])),
     r'the image of cam_high has shape \(32, 32, 3\), expected \(64, 64, 3\)'),
])
def test_an_observation_that_cannot_be_planned_from_says_why(planner, observation, change, message):
    with pytest.raises(PlanError, match=message):
        plan(planner, change(observation))


def test_an_instruction_that_is_too_long_says_so_and_the_next_one_works(planner, observation):
    with pytest.raises(PromptError, match='10000 tokens, at most 2048'):
        plan(planner, replace(observation, prompt='x' * 10_000))
    assert np.isfinite(plan(planner, observation).gripper).all()


def test_a_checkpoint_of_another_robot_is_refused(contract, trained):
    with pytest.raises(CheckpointError, match='horizon: checkpoint has 32, robot has 8'):
        load_planner(PlannerConfig(checkpoint=str(trained), device='cpu'), replace(contract, horizon=8))


@pytest.mark.parametrize(('settings', 'error', 'message'), [
    ({'checkpoint': '/nowhere'}, CheckpointError, 'there is no checkpoint at /nowhere'),
    ({'vlm': '/nowhere'}, VlmError, "cannot load the vision-language model '/nowhere'"),
    ({'device': 'toaster'}, ValueError, "device is 'toaster'"),
])
def test_settings_that_cannot_be_met_say_why(make_planner, settings, error, message):
    with pytest.raises(error, match=message):
        make_planner(**settings)


def test_an_image_size_that_the_encoder_cannot_take_is_refused_at_load(contract):
    with pytest.raises(ValueError, match='images are 100 px wide; .* set image_size in the robot contract'):
        load_planner(PlannerConfig(device='cpu'), replace(contract, image_size=100))


def test_bfloat16_plans_near_float32(make_planner, observation):
    exact, rough = plan(make_planner(), observation), plan(make_planner(dtype='bfloat16'), observation)
    assert 0 < np.median(np.abs(exact.gripper - rough.gripper)) < 0.1 * np.abs(exact.gripper).max()


CPU, GPU = torch.device('cpu'), torch.device('cuda')
SHIPPED = CONFIG.parents[2] / 'apt_sim' / 'checkpoints' / 'aloha_small'


@pytest.mark.parametrize(('name', 'device', 'recorded', 'expected'), [
    ('auto', CPU, 'bfloat16', 'float32'), ('auto', CPU, 'float32', 'float32'),
    ('auto', GPU, 'bfloat16', 'bfloat16'), ('auto', GPU, 'float32', 'float32'),
    ('float32', GPU, 'bfloat16', 'float32'), ('bfloat16', CPU, 'float32', 'bfloat16')])
def test_auto_is_the_checkpoints_precision_on_a_gpu_and_float32_on_a_cpu(name, device, recorded, expected):
    assert pick_dtype(name, device, recorded=recorded) == expected


def test_the_shipped_weights_stay_float32_on_a_gpu_and_published_ones_are_bfloat16_there():
    assert pick_dtype('auto', GPU, recorded=read_checkpoint(SHIPPED).vlm.dtype) == 'float32'
    assert pick_dtype('auto', GPU, recorded=VlmConfig().dtype) == 'bfloat16'


def test_auto_is_the_default_and_changes_no_bit_on_a_cpu(make_planner, observation):
    assert PlannerConfig().dtype == 'auto'
    usual, exact = (plan(make_planner(**more), observation) for more in ({}, {'dtype': 'float32'}))
    assert np.array_equal(usual.world_from_ee, exact.world_from_ee) and np.array_equal(usual.gripper, exact.gripper)


def test_several_plans_of_one_observation_are_as_many_draws_of_the_same_noise(make_planner, observation):
    together = make_planner().sample_plans(observation, epoch=2, samples=3)
    planner = make_planner()
    apart = [plan(planner, observation, epoch=2) for _ in range(3)]
    for one, other in zip(together, apart, strict=True):
        assert one.epoch == 2 and np.allclose(one.world_from_ee, other.world_from_ee, atol=1e-4)
    assert not np.allclose(together[0].gripper, together[1].gripper)


def test_averages_without_a_checkpoint_are_refused(contract):
    with pytest.raises(ValueError, match='use_ema is true but no checkpoint'):
        load_planner(PlannerConfig(device='cpu', use_ema=True), contract)


def test_averages_that_the_checkpoint_lacks_are_asked_for_in_vain(make_planner):
    with pytest.raises(CheckpointError, match='has no averaged weights: there is no last_ema beside it'):
        make_planner(use_ema=True)


def test_settings_travel_to_a_worker_process():
    settings = PlannerConfig(seed=3)
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert pickle.loads(pickle.dumps(load_planner)) is load_planner


@pytest.fixture(scope='module')
def untrained(contract):
    return load_planner(PlannerConfig(device='cpu'), contract)


def test_an_untrained_policy_says_so(contract, caplog):
    load_planner(PlannerConfig(device='cpu'), contract)
    assert 'UNTRAINED' in caplog.text


def test_an_untrained_policy_circles_within_centimetres_of_where_it_began(untrained, observation):
    chunk = plan(untrained, observation, epoch=1)
    for arm, state in enumerate(observation.arms):
        offset = chunk.world_from_ee[:, arm, :3, 3] - state.world_from_ee[:3, 3]
        assert 0.03 < np.linalg.norm(offset, axis=-1).max() < 0.1
        assert np.linalg.norm(np.diff(offset, axis=0), axis=-1).max() < 0.1 * 0.25, 'under the speed limit'
        assert np.allclose(chunk.world_from_ee[:, arm, :3, :3], state.world_from_ee[:3, :3], atol=1e-4)
    assert np.all((chunk.gripper > -1e-4) & (chunk.gripper < 1 + 1e-4))


def test_untrained_plans_continue_each_other_and_do_not_drift(untrained, observation):
    """Even where the arm lags behind: the circle is fixed to where the epoch began."""
    first = plan(untrained, observation, epoch=2)
    later = replace(observation, stamp_ns=observation.stamp_ns + 10 * STEP_NS, history=(tuple(
        replace(arm, world_from_ee=pose(4, (0.1, 0.4, 0.3))) for arm in observation.arms),))
    second = plan(untrained, later, epoch=2)
    assert np.allclose(second.world_from_ee[:-10], first.world_from_ee[10:], atol=1e-4)
    assert np.allclose(second.gripper[:-10], first.gripper[10:], atol=1e-4)


def test_a_new_epoch_starts_an_untrained_policy_from_where_the_arms_are(untrained, observation):
    plan(untrained, observation, epoch=3)
    moved = replace(observation, history=(tuple(
        replace(arm, world_from_ee=pose(4, (0.1, 0.4, 0.3))) for arm in observation.arms),))
    assert np.allclose(plan(untrained, moved, epoch=4).world_from_ee[0, 0, :3, 3], (0.1, 0.4, 0.3), atol=5e-3)


def test_close_lets_go_of_the_model(make_planner):
    planner = make_planner()
    planner.close()
    assert not hasattr(planner, '_policy')
