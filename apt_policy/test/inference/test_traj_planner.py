"""The published planner's door, against the node's planner and on the shipped weights."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from apt_policy import TrajPlanner
from apt_policy.core.contract import load_contract
from apt_policy.core.images import letterbox
from apt_policy.core.policy_facts import policy_facts_from_dict
from apt_policy.core.prompt import PromptError
from apt_policy.core.sample import ArmState, Observation, View
from apt_policy.inference.chunking import ensemble_weights
from apt_policy.inference.obs_frame import FrameError, read_obs_frame
from apt_policy.inference.planner import PlanError, load_planner
from apt_policy.inference.planner_config import PlannerConfig
from apt_policy.model.checkpoint import CheckpointError, ema_path
from apt_policy.model.config import TINY_VLM, ExpertConfig, PolicyConfig, TrainingStage, VlmConfig
from apt_policy.model.expert import Expert
from apt_policy.model.policy import Policy
from apt_policy.model.restore import save_policy
from apt_policy.model.vlm.bridge import build_bridge

ROOT = Path(__file__).resolve().parents[3]
PINHOLE = np.array([[500.0, 0, 320], [0, 510, 238], [0, 0, 1]])
PROMPT = 'pick up the red cube'
QUICK = {'device': 'cpu', 'denoising_steps': 2}


@pytest.fixture(scope='module')
def contract():
    """The simulated ALOHA with small images and a past of three states."""
    return replace(load_contract(ROOT / 'apt_bringup' / 'config' / 'aloha_sim.yaml'), image_size=64, history=3)


@pytest.fixture(scope='module')
def policy():
    """Random numbers everywhere, as if it had learned something."""
    bridge = build_bridge(VlmConfig(name=TINY_VLM, dtype='float32'), torch.device('cpu'))
    config = ExpertConfig(stage=TrainingStage.VLA, width=32, heads=2, vlm_width=bridge.width, taps=bridge.taps)
    expert, random = Expert(config), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in expert.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * parameter.shape[-1] ** -0.5)
    return Policy(PolicyConfig(expert=config, vlm=bridge.config), bridge, expert)


@pytest.fixture(scope='module')
def trained(contract, policy, tmp_path_factory):
    folder = tmp_path_factory.mktemp('run') / 'iter_000003'
    save_policy(folder, policy, contract=contract.policy_facts(), iteration=3, git_revision='abc')
    return folder


@pytest.fixture
def planner(trained):
    return TrajPlanner(trained, **QUICK).set_prompt(PROMPT)


def pose(seed, at):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    matrix[:3, 3] = at
    return matrix


def frame_at(contract, stamp_s, *, shift=0.0):
    """Four cameras and two arms; ``shift`` moves the arms [m] and the openings."""
    random = np.random.default_rng(0)
    frame = {'timestamp': stamp_s, 'gripper': np.array([0.3, 0.6]) + shift,
             'ee_pose': np.stack([pose(8, (-0.2, 0.5 + shift, 0.2)), pose(9, (0.2, 0.5 + shift, 0.2))])}
    for i, name in enumerate(contract.cameras):
        frame[name] = {'model': 'pinhole', 'camera': {'width': 640, 'height': 480, 'K': PINHOLE.ravel().tolist()},
                       'data': {'color': random.integers(0, 256, (480, 640, 3), dtype=np.uint8), 'seg': None,
                                'wcT': pose(i, (0.1 * i, 0.5, 0.6))}}
    return frame


def observation_of(frame, contract, history):
    """What the node would have made of the same images and states."""
    corner = PINHOLE + [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
    stamp_ns = round(frame['timestamp'] * 1e9)
    views = []
    for name in contract.cameras:
        boxed = letterbox(frame[name]['data']['color'], corner, contract.image_size)
        views.append(View(rgb=boxed.rgb, mask=boxed.mask, intrinsics=boxed.intrinsics, stamp_ns=stamp_ns,
                          world_from_camera=frame[name]['data']['wcT']))
    states = tuple(tuple(ArmState(world_from_ee=ee, gripper=opening) for ee, opening in
                         zip(past['ee_pose'], past['gripper'], strict=True)) for past in history)
    return Observation(stamp_ns=stamp_ns, prompt=PROMPT, views=tuple(views), history=states)


def code_of(page, mark):
    """The block of code behind the comment that begins with ``mark``."""
    return re.search(rf'<!-- {mark}: .*?-->\n```python\n(.*?)```', page, re.DOTALL).group(1)


def test_the_five_lines_of_the_documentation_plan_on_the_shipped_weights(monkeypatch):
    monkeypatch.chdir(ROOT)
    page = (ROOT / 'docs' / 'inference.md').read_text()
    lines = code_of(page, 'five lines')
    assert len(lines.splitlines()) == 5
    names = {}
    exec(code_of(page, 'a frame'), names)
    exec(lines, names)
    assert names['ee_poses'].shape == (1, 16, 2, 4, 4) and names['grippers'].shape == (1, 16, 2)
    assert np.allclose(names['times'], 12.5 + 0.1 * np.arange(1, 17))
    rotation = names['ee_poses'][..., :3, :3]
    assert np.allclose(rotation @ np.swapaxes(rotation, -1, -2), np.eye(3), atol=1e-5)


def test_importing_the_core_of_the_package_loads_neither_torch_nor_transformers():
    program = 'import sys, apt_policy.core.contract; print(*sorted({"torch", "transformers"} & set(sys.modules)))'
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout) == (0, '\n'), done.stdout + done.stderr


def test_a_name_that_the_package_does_not_offer_is_an_import_error():
    import apt_policy
    with pytest.raises(AttributeError, match="'apt_policy' has no attribute 'TrajPlaner'; it offers TrajPlanner"):
        getattr(apt_policy, 'TrajPlaner')  # noqa: B009
    done = subprocess.run([sys.executable, '-c', 'from apt_policy import TrajPlaner'], capture_output=True, text=True,
                          timeout=200, check=False)
    assert done.returncode and 'ImportError: cannot import name' in done.stderr


def test_a_plan_is_the_nodes_plan_for_the_same_images_and_states(planner, contract, trained):
    first, second = frame_at(contract, 3.0), frame_at(contract, 3.2, shift=0.5)
    planner.add_obs_frame(first).add_obs_frame(second)
    action = planner.get_action()
    # Two steps of 0.1 s back stands the first frame, between them is the middle of both.
    between = frame_at(contract, 3.1, shift=0.25)
    chunk, other = (
        load_planner(PlannerConfig(checkpoint=str(trained), **QUICK), contract).plan(
            observation_of(second, contract, past), epoch=0, prefix=None)
        for past in ((first, between, second), (between, first, second)))
    assert np.allclose(action.future_ee_poses[0], chunk.world_from_ee, rtol=0, atol=4e-6)
    assert not np.allclose(other.world_from_ee, chunk.world_from_ee, rtol=0, atol=2e-5), 'the past counts'
    assert np.allclose(action.future_grippers[0], chunk.gripper, atol=1e-5)
    assert np.array_equal(action.future_time, chunk.due_ns / 1e9) and action.traj_img is None


def test_before_the_first_frame_the_past_is_that_frame(planner, contract, trained):
    frame = frame_at(contract, 3.0)
    action = planner.add_obs_frame(frame).get_action()
    node = load_planner(PlannerConfig(checkpoint=str(trained), **QUICK), contract)
    chunk = node.plan(observation_of(frame, contract, (frame,) * 3), epoch=0, prefix=None)
    assert np.allclose(action.future_ee_poses[0], chunk.world_from_ee, atol=1e-5)


def test_frames_older_than_the_past_reaches_are_forgotten(planner, contract):
    for step in range(40):
        planner.add_obs_frame(frame_at(contract, 3.0 + 0.05 * step))
    assert [round(stamp_ns / 1e9, 2) for stamp_ns, _ in planner._past] == [4.75, 4.8, 4.85, 4.9, 4.95]


def test_several_samples_differ(planner, contract):
    poses, grippers, times, _ = planner.add_obs_frame(frame_at(contract, 3.0)).get_action(sample_num=3)
    assert poses.shape == (3, 32, 2, 4, 4) and grippers.shape == (3, 32, 2) and times.shape == (32,)
    assert not np.allclose(grippers[0], grippers[1])


def test_an_ensemble_averages_where_plans_overlap(trained, contract):
    frames = [frame_at(contract, stamp_s) for stamp_s in (3.0, 3.25, 4.0)]
    alone, together = (TrajPlanner(trained, ensemble=size, **QUICK).set_prompt(PROMPT) for size in (0, -1))
    plans, averaged = ([each.add_obs_frame(frame).get_action() for frame in frames] for each in (alone, together))
    assert np.allclose(averaged[0].future_grippers, plans[0].future_grippers, atol=1e-9)
    times, weights = plans[2].future_time, ensemble_weights(3)
    # An older plan counts up to its end, and between its rows by interpolation.
    counts = np.array([weight * (times <= plan.future_time[-1] + 1e-9) for weight, plan in
                       zip(weights, plans, strict=True)])
    values = np.array([np.interp(times, plan.future_time, plan.future_grippers[0, :, 1]) for plan in plans])
    assert (counts > 0).sum(axis=0).tolist() == [3] * 22 + [2] * 2 + [1] * 8
    assert np.allclose(averaged[2].future_grippers[0, :, 1], (counts * values).sum(0) / counts.sum(0), atol=1e-6)
    rotation = averaged[2].future_ee_poses[..., :3, :3]
    assert np.allclose(rotation @ np.swapaxes(rotation, -1, -2), np.eye(3), atol=1e-9)


def test_an_ensemble_of_two_forgets_the_oldest_and_another_instruction_forgets_all(trained, contract):
    frames = [frame_at(contract, 3.0 + 0.1 * k) for k in range(3)]
    last = {}
    for size in (0, 2, -1):
        planner = TrajPlanner(trained, ensemble=size, noise_scale=0.0, **QUICK).set_prompt(PROMPT)
        last[size] = [planner.add_obs_frame(frame).get_action().future_grippers[0, 0, 0] for frame in frames][-1]
        if size == -1:
            planner.set_prompt('pick up the green bar')
            other = TrajPlanner(trained, noise_scale=0.0, **QUICK).set_prompt('pick up the green bar')
            for frame in frames:
                other.add_obs_frame(frame)
            for each in (planner, other):
                each.add_obs_frame(frame_at(contract, 3.3))
            assert np.allclose(planner.get_action().future_grippers, other.get_action().future_grippers, atol=1e-6)
    assert len({round(float(value), 6) for value in last.values()}) == 3


def test_averaged_weights_are_planned_with_where_asked_for(trained, policy, contract, tmp_path):
    with pytest.raises(CheckpointError, match='has no averaged weights: there is no iter_000003_ema beside it'):
        TrajPlanner(trained, use_ema=True, **QUICK)
    weights = policy.expert.state_dict()
    torch.save({'weights': weights, 'ema': {'shadow_params': [value * 0.5 for value in weights.values()]}},
               tmp_path / 'ckpt_latest.pt')
    save_policy(tmp_path / 'run', policy, contract=contract.policy_facts(), iteration=3, git_revision='')
    for parameter in policy.expert.parameters():
        parameter.data.mul_(0.5)
    save_policy(ema_path(tmp_path / 'run'), policy, contract=contract.policy_facts(), iteration=3, git_revision='')
    for parameter in policy.expert.parameters():
        parameter.data.mul_(2.0)
    frame = frame_at(contract, 3.0)
    published = {'contract': contract, 'vlm': TINY_VLM}
    usual, averaged, of_file = (
        TrajPlanner(path, use_ema=use_ema, **more, **QUICK).set_prompt(PROMPT).add_obs_frame(frame).get_action()
        for path, use_ema, more in ((tmp_path / 'run', False, {}), (tmp_path / 'run', True, {}),
                                    (tmp_path / 'ckpt_latest.pt', True, published)))
    assert not np.allclose(usual.future_grippers, averaged.future_grippers, atol=1e-3)
    assert np.array_equal(averaged.future_grippers, of_file.future_grippers)


def test_a_published_file_needs_a_contract_and_says_so(policy, contract, tmp_path):
    path = tmp_path / 'ckpt_latest.pt'
    torch.save({'weights': policy.expert.state_dict()}, path)
    with pytest.raises(CheckpointError, match=r'does not contain the cameras .* \(no .cameras.\); give contract='):
        TrajPlanner(path, vlm=TINY_VLM, **QUICK)
    planner = TrajPlanner(path, vlm=TINY_VLM, contract=ROOT / 'config' / 'aloha.yaml', **QUICK)
    assert planner.arms == ('left', 'right') and planner.cameras == tuple(contract.cameras)


def test_a_contract_of_another_robot_is_refused(trained, contract):
    with pytest.raises(CheckpointError, match='horizon: checkpoint has 32, robot has 8'):
        TrajPlanner(trained, contract=replace(contract, horizon=8), **QUICK)


def test_nothing_is_planned_before_there_is_a_frame_and_an_instruction(trained, contract):
    planner = TrajPlanner(trained, **QUICK)
    with pytest.raises(PlanError, match=r'there is no frame yet; call add_obs_frame\(\) first'):
        planner.get_action()
    planner.add_obs_frame(frame_at(contract, 3.0))
    with pytest.raises(PlanError, match=r'there is no instruction yet; call set_prompt\(\) first'):
        planner.get_action()
    with pytest.raises(PromptError, match='the prompt is empty'):
        planner.set_prompt('  ')
    with pytest.raises(ValueError, match='sample_num is 0; expected at least 1'):
        planner.set_prompt(PROMPT).get_action(sample_num=0)


def test_time_runs_forwards_within_an_episode_and_starts_over_with_the_next(planner, contract):
    planner.add_obs_frame(frame_at(contract, 3.0))
    with pytest.raises(FrameError, match=r'timestamp is 3.0 s, that of the last frame was 3.0 s; .*reset\(\) between'):
        planner.add_obs_frame(frame_at(contract, 3.0))
    planner.reset().add_obs_frame(frame_at(contract, 0.0)).get_action()


def test_a_camera_may_be_absent_but_not_every_reference_camera(planner, contract):
    frame = frame_at(contract, 3.0)
    planner.add_obs_frame({**frame, 'cam_low': None}).get_action()
    with pytest.raises(PlanError, match='none of its reference cameras'):
        planner.reset().add_obs_frame({**frame, **dict.fromkeys(contract.cameras)}).get_action()


def without(key):
    return lambda frame: frame.pop(key)


def in_camera(part, **values):
    return lambda frame: frame['cam_high'][part].update(values)


@pytest.mark.parametrize(('damage', 'message'), [
    (without('cam_high'), 'the frame has no cam_high; it has timestamp, .* Give None for a camera without image'),
    (without('gripper'), 'the frame has no gripper'),
    (lambda frame: frame.update(timestamp='now'), "timestamp is 'now'; expected numbers"),
    (lambda frame: frame.update(ee_pose=np.eye(4)), r'ee_pose has shape \(4, 4\); expected .* shape \(2, 4, 4\)'),
    (lambda frame: frame['ee_pose'].__setitem__((0, 0, 3), np.nan), 'ee_pose .* is not finite'),
    (lambda frame: frame['ee_pose'].__imul__(2), 'ee_pose is not a rigid transform'),
    (lambda frame: frame.update(gripper=0.5), r'gripper has shape \(\); expected finite numbers of shape \(2,\)'),
    (lambda frame: frame.update(cam_high=3), "cam_high: AttributeError: .*expected {'camera'"),
    (lambda frame: frame['cam_high'].pop('data'), "cam_high: KeyError: 'data'; expected {'camera'"),
    (lambda frame: frame['cam_high'].update(model='fisheye'), "cam_high: model is 'fisheye'; only 'pinhole'"),
    (in_camera('data', color=np.zeros((480, 640, 3))), r'cam_high: color is float64 \(480, 640, 3\); expected uint8'),
    (in_camera('data', color=np.zeros((3, 480, 640), np.uint8)), r'color is uint8 \(3, 480, 640\); expected uint8'),
    (in_camera('camera', width=320), 'cam_high: color is 640 x 480 px, camera says 320 x 480'),
    (in_camera('camera', K=np.zeros(9)), 'cam_high: K is .*; expected fx, fy > 0'),
    (in_camera('camera', K=np.eye(4)), r'cam_high: K has shape \(4, 4\)'),
    (in_camera('data', wcT=np.zeros((4, 4))), 'cam_high: wcT is not a rigid transform'),
])
def test_a_frame_that_cannot_be_planned_from_says_which_key_is_wrong(contract, damage, message):
    frame = frame_at(contract, 3.0)
    damage(frame)
    with pytest.raises(FrameError, match=message):
        read_obs_frame(frame, contract)


def test_one_arm_may_be_given_without_its_axis(contract):
    left = policy_facts_from_dict({**contract.policy_facts(), 'arms': ['left']}, source='one arm')
    frame = frame_at(contract, 3.0)
    bare = {**frame, 'ee_pose': frame['ee_pose'][0], 'gripper': 0.3}
    whole = {**frame, 'ee_pose': frame['ee_pose'][:1], 'gripper': [0.3]}
    for given in (bare, whole):
        arm, = read_obs_frame(given, left).arms
        assert np.array_equal(arm.world_from_ee, frame['ee_pose'][0]) and arm.gripper == 0.3
