"""Policy: vision-language model, expert, loss and sampling.

Letters: B batch, S samples of an observation, A arms, T horizon, K prefix steps.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from apt_policy.model.actions import actions_to_noise, decode_actions, encode_states, noise_to_actions
from apt_policy.model.batch import Images, RobotState, VlFeatures
from apt_policy.model.config import PolicyConfig, Prediction, check_noise_scale
from apt_policy.model.diffusion import ActionPrefix, Loss, chunk_loss, denoise, make_scheduler
from apt_policy.model.expert import Conditioning, Expert
from apt_policy.model.frames import centre, invert_pose, move_robot, move_states
from apt_policy.model.fusion import preallocate
from apt_policy.model.packed import can_pack, pack
from apt_policy.model.perturb import (
    TURN_ONLY,
    Perturbation,
    drop_cameras,
    shake_current,
    shake_history,
    turn_world,
)
from apt_policy.model.vlm.bridge import VlmBridge


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingBatch:
    """Training samples with their future states."""

    images: Images
    robot: RobotState
    future: Tensor
    """(B, T, A, 17) states, in the frame of ``robot``."""


class Policy(nn.Module):
    """VLM and expert; ``forward`` is the training loss, so that wrappers for distributed training can be used."""

    def __init__(self, config: PolicyConfig, vlm: VlmBridge, expert: Expert | None = None) -> None:
        super().__init__()
        self.config = config
        self.vlm = vlm
        self.expert = Expert(config.expert) if expert is None else expert
        self._scheduler = make_scheduler(config.expert.train_steps, config.expert.denoising_steps,
                                         config.expert.prediction)

    def forward(self, batch: TrainingBatch, perturbation: Perturbation = TURN_ONLY,
                generator: torch.Generator | None = None, noise_samples: int = 1) -> Loss:
        """Compute the loss at random noise levels.

        Args:
            batch: training samples.
            perturbation: augmentation of the samples.
            generator: random numbers, on the batch's device; None uses torch's global generator.
            noise_samples: number of noise samples per observation, which share the output of the VLM and of the
                expert's vision-language half.
        """
        images = batch.images
        if perturbation.camera_dropout > 0:
            images = drop_cameras(images, perturbation.camera_dropout, generator)
        return self.loss(self.vlm(images), batch.robot, batch.future, perturbation, generator, noise_samples)

    def loss(self, features: VlFeatures, robot: RobotState, future: Tensor,
             perturbation: Perturbation = TURN_ONLY,
             generator: torch.Generator | None = None, noise_samples: int = 1) -> Loss:
        """Compute the loss from features of a frozen VLM; see :meth:`forward`."""
        if perturbation.turn_world:
            robot, future = turn_world(robot, future, features.camera_valid, generator)
        if perturbation.noise.current_translation > 0:
            robot = shake_current(robot, perturbation.noise, generator)
        history = shake_history(encode_states(robot.history, robot), perturbation.noise, generator)
        clean = encode_states(future, robot).repeat_interleave(noise_samples, 0)
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        level = torch.randint(self.config.expert.train_steps, (len(clean),), generator=generator,
                              device=clean.device)
        conditioning = self.expert.observe(features, robot, horizon=clean.shape[2], history=history)
        if noise_samples > 1:
            conditioning = conditioning.repeated(noise_samples)
        size = self.config.expert.translation_noise
        noisy = self._scheduler.add_noise(clean, noise_to_actions(noise, size), level)
        predicted = self.expert.predict(conditioning, noisy, level)
        of_noise = self.config.expert.prediction is Prediction.NOISE
        wanted = noise if of_noise else actions_to_noise(clean, size)
        return chunk_loss(predicted, wanted, robot.valid_arms.repeat_interleave(noise_samples, 0))

    def sampler(self, denoising_steps: int | None = None, *, noise_scale: float = 1.0) -> 'ActionSampler':
        """Create a sampler with the present weights."""
        return ActionSampler(self.expert, denoising_steps, noise_scale=noise_scale)


class ActionSampler:
    """Sampler of action chunks with fixed weights; create a new one after the weights change.

    The modulations are computed once per schedule, the key-value caches once per observation
    (:meth:`Expert.observe`), and only the action half runs at every step.
    """

    def __init__(self, expert: Expert, denoising_steps: int | None = None, *, noise_scale: float = 1.0) -> None:
        """Compute everything that does not depend on an observation.

        Args:
            expert: expert with the weights to use.
            denoising_steps: number of diffusion steps; None for the expert's.
            noise_scale: scale of the initial noise, 0..1. At 1 actions are sampled from the learned distribution; at 0
                sampling is deterministic and gives actions in its middle.

        Raises:
            ValueError: ``noise_scale`` is outside its range.
        """
        check_noise_scale(noise_scale)
        self._noise_scale = noise_scale
        steps = denoising_steps or expert.config.denoising_steps
        self.scheduler = make_scheduler(expert.config.train_steps, steps, expert.config.prediction)
        self._expert = pack(expert) if can_pack(expert) else expert
        device = expert.dp_head.act_head.weight.device
        with torch.inference_mode():
            self._modulations = [expert.dp_head.modulate(level[None])
                                 for level in self.scheduler.timesteps.to(device)]

    @torch.inference_mode()
    def observe(self, features: VlFeatures, robot: RobotState, *, horizon: int) -> Conditioning:
        """Compute the conditioning of B observations, shared by all of their samples."""
        return self._expert.observe(features, robot, horizon=horizon)

    @torch.inference_mode()
    def sample(self, conditioning: Conditioning, noise: Tensor, prefix: ActionPrefix | None = None) -> Tensor:
        """Sample actions (B * S, A, T, 10) from unit noise of the same shape.

        Args:
            conditioning: output of :meth:`observe` for B observations.
            noise: (B * S, A, T, 10) unit noise, the S samples of an observation in a row.
            prefix: fixed prefix of the chunks; None samples freely.
        """
        observations, arms, history = conditioning.history.shape[:3]
        if len(noise) != observations:
            conditioning = conditioning.repeated(len(noise) // observations)
        tokens = arms * (history + noise.shape[2])
        conditioning = replace(conditioning, kv_caches=tuple(preallocate(m, tokens) for m in conditioning.kv_caches))
        size, noise = self._expert.config.translation_noise, noise * self._noise_scale
        return denoise(
            lambda x, step: noise_to_actions(self._expert.denoise(conditioning, x, self._modulations[step]), size),
            noise_to_actions(noise, size), self.scheduler, prefix)


@torch.inference_mode()
def predict_states(sampler: ActionSampler, features: VlFeatures, robot: RobotState, noise: Tensor,
                   prefix: ActionPrefix | None = None) -> Tensor:
    """Sample future states (B * S, T, A, 17) in the frame of ``robot``.

    Args:
        sampler: sampler of the trained expert.
        features: features of B observations.
        robot: poses of cameras and arms.
        noise: (B * S, A, T, 10) unit noise, the S samples of an observation in a row.
        prefix: fixed prefix of the B * S chunks.
    """
    conditioning = sampler.observe(features, robot, horizon=noise.shape[2])
    actions = sampler.sample(conditioning, noise, prefix)
    samples = len(noise) // len(robot.valid_arms)
    world_from_local = centre(robot.world_from_camera, features.camera_valid)
    local = move_robot(invert_pose(world_from_local), robot).repeated(samples)
    return move_states(world_from_local.repeat_interleave(samples, 0), decode_actions(actions, local))
