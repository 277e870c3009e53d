"""The planner: one observation in, one chunk out, by the policy model.

The only module of this package that knows torch. It turns an observation into the model's
batch, runs the VLM once, caches, denoises and answers in world poses. When it is asked, and
what becomes of the chunk, is others' business.

Letters: S samples, A arms, T horizon.
"""

import logging
import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from apt_policy.core.contract import RobotContract
from apt_policy.core.policy_facts import PolicyFacts
from apt_policy.core.sample import Chunk, Observation
from apt_policy.inference.planner_settings import PlannerSettings
from apt_policy.inference.ports import Committed
from apt_policy.inference.untrained import Circle, UntrainedMotion
from apt_policy.model.actions import ACTION_SIZE, encode_states
from apt_policy.model.batch import RobotState, move
from apt_policy.model.checkpoint import Checkpoint, read_checkpoint
from apt_policy.model.config import TINY_VLM, ExpertConfig, ExpertSize, PolicyConfig, TrainingStage, VlmConfig
from apt_policy.model.observation import (
    blank_observation,
    encode_images,
    encode_prefix,
    encode_robot_state,
    reference_candidates,
)
from apt_policy.model.policy import Policy, predict_states
from apt_policy.model.restore import build_policy
from apt_policy.model.vlm.bridge import build_bridge

log = logging.getLogger(__name__)


class PlanError(ValueError):
    """An observation that no plan can be made from; the message says what is missing."""


class PolicyPlanner:
    """Implements :class:`~apt_policy.inference.ports.Planner`."""

    def __init__(self, policy: Policy, contract: RobotContract | PolicyFacts, *, denoising_steps: int, seed: int,
                 noise_scale: float = 1.0, untrained: UntrainedMotion | None = None) -> None:
        """Get ready to plan.

        Args:
            policy: on its device, in its precision.
            contract: of the robot, or what the checkpoint says of it.
            denoising_steps: from noise to a plan.
            seed: of the noise.
            noise_scale: of the noise, 0..1.
            untrained: takes the noise's place where ``policy`` has learned nothing: its head is
                zero then, so what goes in comes out.
        """
        self._policy = policy.eval()
        self._sampler = policy.sampler(denoising_steps, noise_scale=1.0 if untrained else noise_scale)
        self._contract = contract
        self._device = policy.vlm.device
        self._seed = seed
        self._random = torch.Generator().manual_seed(seed)
        self._untrained = untrained
        self._references = reference_candidates(contract)

    def warm_up(self) -> None:
        """Plan once from invented input of the real shapes; the noise starts over afterwards."""
        blank = blank_observation(self._contract)
        self.plan(blank, epoch=-1, committed=None)
        self._random.manual_seed(self._seed)

    @torch.inference_mode()
    def plan(self, observation: Observation, *, epoch: int, committed: Committed | None) -> Chunk:
        """Plan from ``observation``; rows already committed are kept and planned around.

        Raises:
            PlanError, PromptError: see :meth:`sample_plans`.
        """
        return self._plans(observation, epoch=epoch, committed=committed, samples=1)[0]

    @torch.inference_mode()
    def sample_plans(self, observation: Observation, *, epoch: int, samples: int) -> tuple[Chunk, ...]:
        """Plan ``samples`` times from as many draws of noise; the images are looked at once.

        Raises:
            PlanError: the observation does not fit the contract, or an arm has no reference camera.
            PromptError: the model cannot take the instruction.
        """
        return self._plans(observation, epoch=epoch, committed=None, samples=samples)

    def _plans(self, observation: Observation, *, epoch: int, committed: Committed | None,
               samples: int) -> tuple[Chunk, ...]:
        began_s = time.perf_counter()
        self._check(observation)
        images = encode_images(observation)
        robot = move(encode_robot_state(observation, images.camera_valid, self._references), self._device)
        held = None if committed is None else encode_prefix(
            committed.world_from_ee, committed.gripper, committed.valid_arms, robot)
        features = self._policy.vlm(move(images, self._device))
        noise = self._noise(observation, robot, epoch, samples)
        plans = predict_states(self._sampler, features, robot, noise, held).double().cpu().numpy()
        present = np.array([arm is not None for arm in observation.arms])
        return tuple(
            Chunk(stamp_ns=observation.stamp_ns, step_ns=self._contract.step_ns,
                  world_from_ee=plan[..., :16].reshape(*plan.shape[:2], 4, 4), gripper=plan[..., 16],
                  valid_arms=present, epoch=epoch, prompt=observation.prompt,
                  inference_s=time.perf_counter() - began_s)
            for plan in plans)

    def close(self) -> None:
        """Let go of the model and its memory."""
        del self._policy, self._sampler
        if self._device.type == 'cuda':
            torch.cuda.empty_cache()

    def _noise(self, observation: Observation, robot: RobotState, epoch: int, samples: int) -> Tensor:
        """(S, A, T, 10)."""
        if self._untrained is None:
            shape = (samples, len(self._contract.arms), self._contract.horizon, ACTION_SIZE)
            return torch.randn(shape, generator=self._random).to(self._device)
        states = torch.from_numpy(self._untrained.states(observation, epoch)).to(self._device)[None]
        scheduler = self._sampler.scheduler
        kept = scheduler.alphas_cumprod[scheduler.timesteps[0]].sqrt()
        return (encode_states(states, robot) * kept.to(self._device)).repeat(samples, 1, 1, 1)

    def _check(self, observation: Observation) -> None:
        """Against the contract."""
        contract = self._contract
        expected = (len(contract.cameras), len(contract.arms), contract.history)
        got = (len(observation.views), len(observation.arms), len(observation.history))
        if got != expected:
            raise PlanError(f'the observation has {got} cameras, arms and history states; '
                            f'the contract {contract.name!r} has {expected}')
        for name, view in zip(contract.cameras, observation.views, strict=True):
            side = contract.image_size
            if view is not None and view.rgb.shape != (side, side, 3):
                raise PlanError(f'{name} shows {view.rgb.shape}, expected {(side, side, 3)}')
        seen = {name for name, view in zip(contract.cameras, observation.views, strict=True)
                if view is not None and view.mask.any()}
        candidates = [arm.reference_cameras for arm in contract.arms.values()]
        for name, cameras, state in zip(contract.arms, candidates, observation.arms, strict=True):
            if state is not None and not seen & set(cameras):
                raise PlanError(f'{name}: none of its reference cameras {", ".join(cameras)} has an image')


def load_planner(settings: PlannerSettings, contract: RobotContract) -> PolicyPlanner:
    """Load the policy that ``settings`` name and check it against the robot.

    Raises:
        CheckpointError: absent, corrupt, a prior that reads no language, or made for another robot.
        VlmError: its VLM cannot be loaded.
        ValueError: a device that this machine lacks, or averages of no checkpoint.
    """
    if settings.checkpoint:
        checkpoint = read_checkpoint(settings.checkpoint, use_ema=settings.use_ema)
        return build_planner(checkpoint, settings, contract)
    if settings.use_ema:
        raise ValueError('use_ema is true and there is no checkpoint to average; name one, or leave it false')
    log.warning('no checkpoint: the policy is UNTRAINED; it moves the arms in small circles')
    policy = untrained_policy(settings, pick_device(settings.device))
    untrained = UntrainedMotion(Circle(), horizon=contract.horizon, step_ns=contract.step_ns)
    return _planner(policy, settings, contract, untrained)


def build_planner(checkpoint: Checkpoint, settings: PlannerSettings,
                  contract: RobotContract | PolicyFacts) -> PolicyPlanner:
    """Make a planner of weights that were read, whatever checkpoint ``settings`` name.

    Raises:
        CheckpointError: a prior that reads no language, made for another robot, or weights that do not fit the VLM.
        VlmError: its VLM cannot be loaded.
        ValueError: a device that this machine lacks.
    """
    checkpoint.require_stage(TrainingStage.VLA)
    if isinstance(contract, RobotContract):
        checkpoint.require_contract(contract.policy_facts())
    device = pick_device(settings.device)
    trained_over = checkpoint.vlm or VlmConfig()
    vlm = replace(trained_over, name=settings.vlm or trained_over.name,
                  dtype=pick_dtype(settings.dtype, device, recorded=trained_over.dtype))
    return _planner(build_policy(checkpoint, device=device, vlm=vlm), settings, contract, None)


def _planner(policy: Policy, settings: PlannerSettings, contract: RobotContract | PolicyFacts,
             untrained: UntrainedMotion | None) -> PolicyPlanner:
    policy.vlm.tokens_per_camera(contract.image_size)
    policy.expert.to(getattr(torch, policy.vlm.config.dtype))
    return PolicyPlanner(policy, contract, denoising_steps=settings.denoising_steps, seed=settings.seed,
                         noise_scale=settings.noise_scale, untrained=untrained)


def untrained_policy(settings: PlannerSettings, device: torch.device) -> Policy:
    """A tiny VLA with random weights over the tiny VLM, or over the one that is named."""
    dtype = pick_dtype(settings.dtype, device, recorded=VlmConfig.dtype)
    bridge = build_bridge(VlmConfig(name=settings.vlm or TINY_VLM, dtype=dtype), device)
    width, heads = ExpertSize.TINY.value
    expert = ExpertConfig(stage=TrainingStage.VLA, width=width, heads=heads, vlm_width=bridge.width,
                          taps=bridge.taps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Policy(PolicyConfig(expert=expert, vlm=bridge.config), bridge).to(device)


def pick_device(name: str) -> torch.device:
    """``auto`` or a torch device.

    Raises:
        ValueError: this machine has no such device.
    """
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'device is {name!r}: {error}; expected auto, cpu, or cuda where there is a GPU'
                         ) from error
    return device


def pick_dtype(name: str, device: torch.device, *, recorded: str) -> str:
    """``auto``, or a precision as it is.

    Args:
        name: what is asked for.
        device: where the model will run. CPUs mostly emulate bfloat16, so ``auto`` is float32 there.
        recorded: what the checkpoint says of its VLM, for ``auto`` on a GPU; weights that were made and tried in
            float32 record that and keep it. A published file records nothing: it gets training's bfloat16.
    """
    if name != 'auto':
        return name
    return 'float32' if device.type == 'cpu' else recorded
