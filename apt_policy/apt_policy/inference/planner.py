"""Planner: one observation in, one action chunk out, by the policy model.

This is the only module of the package that imports torch. It encodes the observation, runs the VLM
and the expert's vision-language half once, denoises, and returns poses in the world.

Letters: S samples, A arms, T horizon.
"""

import logging
import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apt_policy.core.contract import RobotContract
from apt_policy.core.policy_facts import PolicyFacts
from apt_policy.core.sample import ArmState, Chunk, Observation
from apt_policy.inference.planner_config import PlannerConfig
from apt_policy.inference.ports import ChunkPrefix
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
    """Error of an observation that cannot be planned from; the message says what is missing."""


class PolicyPlanner:
    """Planner by a policy model; implements :class:`~apt_policy.inference.ports.Planner`."""

    def __init__(self, policy: Policy, contract: RobotContract | PolicyFacts, *, denoising_steps: int, seed: int,
                 noise_scale: float = 1.0, untrained: 'UntrainedMotion | None' = None) -> None:
        """Prepare sampler and noise generator.

        Args:
            policy: policy on its device, in its precision.
            contract: robot contract, or the facts of the checkpoint.
            denoising_steps: number of diffusion steps from noise to a chunk.
            seed: seed of the noise.
            noise_scale: scale of the initial noise, 0..1.
            untrained: motion that replaces the noise of an untrained policy; its output layer is
                zero, so its input is its output.
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
        """Plan once from a blank observation of the real shapes, then reset the noise generator."""
        blank = blank_observation(self._contract)
        self.plan(blank, epoch=-1, prefix=None)
        self._random.manual_seed(self._seed)

    @torch.inference_mode()
    def plan(self, observation: Observation, *, epoch: int, prefix: ChunkPrefix | None) -> Chunk:
        """Plan from ``observation``; the rows of ``prefix`` are kept.

        Raises:
            PlanError, PromptError: see :meth:`sample_plans`.
        """
        return self._plans(observation, epoch=epoch, prefix=prefix, samples=1)[0]

    @torch.inference_mode()
    def sample_plans(self, observation: Observation, *, epoch: int, samples: int) -> tuple[Chunk, ...]:
        """Plan ``samples`` chunks from different noise; the images are encoded once.

        Raises:
            PlanError: the observation does not fit the contract, or an arm has no reference camera.
            PromptError: the instruction is too long or contains reserved tokens.
        """
        return self._plans(observation, epoch=epoch, prefix=None, samples=samples)

    def _plans(self, observation: Observation, *, epoch: int, prefix: ChunkPrefix | None,
               samples: int) -> tuple[Chunk, ...]:
        began_s = time.perf_counter()
        self._check(observation)
        images = encode_images(observation)
        robot = move(encode_robot_state(observation, images.camera_valid, self._references), self._device)
        action_prefix = None if prefix is None else encode_prefix(
            prefix.world_from_ee, prefix.gripper, prefix.valid_arms, robot)
        features = self._policy.vlm(move(images, self._device))
        noise = self._noise(observation, robot, epoch, samples)
        plans = predict_states(self._sampler, features, robot, noise, action_prefix).double().cpu().numpy()
        present = np.array([arm is not None for arm in observation.arms])
        return tuple(
            Chunk(stamp_ns=observation.stamp_ns, step_ns=self._contract.step_ns,
                  world_from_ee=plan[..., :16].reshape(*plan.shape[:2], 4, 4), gripper=plan[..., 16],
                  valid_arms=present, epoch=epoch, prompt=observation.prompt,
                  inference_s=time.perf_counter() - began_s)
            for plan in plans)

    def close(self) -> None:
        """Release the model and its memory."""
        del self._policy, self._sampler
        if self._device.type == 'cuda':
            torch.cuda.empty_cache()

    def _noise(self, observation: Observation, robot: RobotState, epoch: int, samples: int) -> Tensor:
        """Return the initial noise (S, A, T, 10)."""
        if self._untrained is None:
            shape = (samples, len(self._contract.arms), self._contract.horizon, ACTION_SIZE)
            return torch.randn(shape, generator=self._random).to(self._device)
        states = torch.from_numpy(self._untrained.states(observation, epoch)).to(self._device)[None]
        scheduler = self._sampler.scheduler
        kept = scheduler.alphas_cumprod[scheduler.timesteps[0]].sqrt()
        return (encode_states(states, robot) * kept.to(self._device)).repeat(samples, 1, 1, 1)

    def _check(self, observation: Observation) -> None:
        """Check the observation against the contract."""
        contract = self._contract
        expected = (len(contract.cameras), len(contract.arms), contract.history)
        got = (len(observation.views), len(observation.arms), len(observation.history))
        if got != expected:
            raise PlanError(f'the observation has {got} cameras, arms and history states; '
                            f'the contract {contract.name!r} has {expected}')
        for name, view in zip(contract.cameras, observation.views, strict=True):
            side = contract.image_size
            if view is not None and view.rgb.shape != (side, side, 3):
                raise PlanError(f'the image of {name} has shape {view.rgb.shape}, expected {(side, side, 3)}')
        seen = {name for name, view in zip(contract.cameras, observation.views, strict=True)
                if view is not None and view.mask.any()}
        candidates = [arm.reference_cameras for arm in contract.arms.values()]
        for name, cameras, state in zip(contract.arms, candidates, observation.arms, strict=True):
            if state is not None and not seen & set(cameras):
                raise PlanError(f'{name}: none of its reference cameras {", ".join(cameras)} has an image')


@dataclass(frozen=True, kw_only=True)
class Circle:
    """Circle in the world's x-z plane, upwards from an arm's first pose; neighbouring arms run mirrored."""

    radius_m: float = 0.04
    period_s: float = 8.0


class UntrainedMotion:
    """Circular motion of an untrained policy, from each arm's pose at the start of an epoch, so that it cannot drift.

    Nothing in it depends on images or instruction; it exists so that everything around the model can be tried.
    """

    def __init__(self, circle: Circle, *, horizon: int, step_ns: int) -> None:
        self._circle = circle
        self._offsets_s = np.arange(1, horizon + 1) * step_ns * 1e-9
        self._epoch: int | None = None
        self._start_ns = 0
        self._anchor: tuple[ArmState | None, ...] = ()

    def states(self, observation: Observation, epoch: int) -> NDArray[np.float64]:
        """Compute future states (T, A, 17); rows of an absent arm are the identity."""
        if epoch != self._epoch or len(self._anchor) != len(observation.arms):
            self._epoch, self._start_ns, self._anchor = epoch, observation.stamp_ns, observation.arms
        since_s = (observation.stamp_ns - self._start_ns) * 1e-9 + self._offsets_s
        angle = 2 * math.pi * since_s / self._circle.period_s
        return np.stack([self._arm(arm, angle, (-1.0) ** i) for i, arm in enumerate(self._anchor)], axis=1)

    def _arm(self, anchor: ArmState | None, angle: NDArray[np.floating], side: float) -> NDArray[np.float64]:
        poses = np.tile(np.eye(4) if anchor is None else anchor.world_from_ee, (len(angle), 1, 1))
        poses[:, 0, 3] += side * self._circle.radius_m * np.sin(angle)
        poses[:, 2, 3] += self._circle.radius_m * (1 - np.cos(angle))
        closed = 0.0 if anchor is None else anchor.gripper
        gripper = closed + (0.5 - closed) * (1 - np.cos(angle)) / 2
        return np.concatenate([poses.reshape(-1, 16), gripper[:, None]], axis=1)


def load_planner(config: PlannerConfig, contract: RobotContract) -> PolicyPlanner:
    """Load the policy that ``config`` names and check it against the robot.

    Raises:
        CheckpointError: the checkpoint is absent, corrupt, a VA prior, or of another robot.
        VlmError: its VLM cannot be loaded.
        ValueError: the device does not exist, or use_ema is set without a checkpoint.
    """
    if config.checkpoint:
        checkpoint = read_checkpoint(config.checkpoint, use_ema=config.use_ema)
        return build_planner(checkpoint, config, contract)
    if config.use_ema:
        raise ValueError('use_ema is true but no checkpoint is given; give a checkpoint or set use_ema to false')
    log.warning('no checkpoint is given: the policy is UNTRAINED and moves the arms in small circles')
    policy = untrained_policy(config, pick_device(config.device))
    untrained = UntrainedMotion(Circle(), horizon=contract.horizon, step_ns=contract.step_ns)
    return _planner(policy, config, contract, untrained)


def build_planner(checkpoint: Checkpoint, config: PlannerConfig,
                  contract: RobotContract | PolicyFacts) -> PolicyPlanner:
    """Build a planner from a checkpoint that was already read; ``config.checkpoint`` is ignored.

    Raises:
        CheckpointError: the checkpoint is a VA prior, of another robot, or does not fit the VLM.
        VlmError: its VLM cannot be loaded.
        ValueError: the device does not exist.
    """
    checkpoint.require_stage(TrainingStage.VLA)
    if isinstance(contract, RobotContract):
        checkpoint.require_contract(contract.policy_facts())
    device = pick_device(config.device)
    trained_over = checkpoint.vlm or VlmConfig()
    vlm = replace(trained_over, name=config.vlm or trained_over.name,
                  dtype=pick_dtype(config.dtype, device, recorded=trained_over.dtype))
    return _planner(build_policy(checkpoint, device=device, vlm=vlm), config, contract, None)


def _planner(policy: Policy, config: PlannerConfig, contract: RobotContract | PolicyFacts,
             untrained: UntrainedMotion | None) -> PolicyPlanner:
    policy.vlm.tokens_per_camera(contract.image_size)
    policy.expert.to(getattr(torch, policy.vlm.config.dtype))
    return PolicyPlanner(policy, contract, denoising_steps=config.denoising_steps, seed=config.seed,
                         noise_scale=config.noise_scale, untrained=untrained)


def untrained_policy(config: PlannerConfig, device: torch.device) -> Policy:
    """Build a tiny VLA with random weights over the tiny VLM, or over the VLM that ``config`` names."""
    dtype = pick_dtype(config.dtype, device, recorded=VlmConfig.dtype)
    bridge = build_bridge(VlmConfig(name=config.vlm or TINY_VLM, dtype=dtype), device)
    width, heads = ExpertSize.TINY.value
    expert = ExpertConfig(stage=TrainingStage.VLA, width=width, heads=heads, vlm_width=bridge.width,
                          taps=bridge.taps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return Policy(PolicyConfig(expert=expert, vlm=bridge.config), bridge).to(device)


def pick_device(name: str) -> torch.device:
    """Return the torch device of a name; ``auto`` is a GPU if there is one.

    Raises:
        ValueError: the device does not exist.
    """
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'device is {name!r}: {error}; expected auto, cpu, or cuda on a machine with a GPU'
                         ) from error
    return device


def pick_dtype(name: str, device: torch.device, *, recorded: str) -> str:
    """Resolve ``auto`` to a precision.

    Args:
        name: ``auto``, ``float32`` or ``bfloat16``.
        device: device of the model. ``auto`` is float32 on a CPU, because CPUs mostly emulate bfloat16.
        recorded: precision of the VLM recorded in the checkpoint, used for ``auto`` on a GPU; for a published file,
            which records none, it is the bfloat16 of training.
    """
    if name != 'auto':
        return name
    return 'float32' if device.type == 'cpu' else recorded
