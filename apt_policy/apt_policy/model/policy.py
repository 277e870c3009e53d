"""The whole policy: vision-language model, expert, loss and prediction.

Joins the parts; each of them is described where it lives. Which camera serves as
reference and what a checkpoint looks like is decided elsewhere.

Letters: B batch, A arms, T horizon, K prefix steps.
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
    """Samples with the answer."""

    images: Images
    robot: RobotState
    future: Tensor
    """(B, T, A, 17) states, in the frame of ``robot``."""


class Policy(nn.Module):
    """``forward`` is the training step's loss, so that wrappers for many devices fit around it."""

    def __init__(self, config: PolicyConfig, vlm: VlmBridge, expert: Expert | None = None) -> None:
        super().__init__()
        self.config = config
        self.vlm = vlm
        self.expert = Expert(config.expert) if expert is None else expert
        self._scheduler = make_scheduler(config.expert.train_steps, config.expert.denoising_steps,
                                         config.expert.prediction)

    def forward(self, batch: TrainingBatch, perturbation: Perturbation = TURN_ONLY,
                generator: torch.Generator | None = None, draws: int = 1) -> Loss:
        """Loss on noise of random levels; ``generator`` is on the batch's device.

        Several ``draws`` of noise for every observation share what the VLM and the expert's
        vision-language half say of it.
        """
        images = batch.images
        if perturbation.camera_dropout > 0:
            images = drop_cameras(images, perturbation.camera_dropout, generator)
        return self.loss(self.vlm(images), batch.robot, batch.future, perturbation, generator, draws)

    def loss(self, features: VlFeatures, robot: RobotState, future: Tensor,
             perturbation: Perturbation = TURN_ONLY,
             generator: torch.Generator | None = None, draws: int = 1) -> Loss:
        """The same from features that a frozen VLM gave before."""
        if perturbation.turn_world:
            robot, future = turn_world(robot, future, features.camera_valid, generator)
        if perturbation.noise.current_translation > 0:
            robot = shake_current(robot, perturbation.noise, generator)
        history = shake_history(encode_states(robot.history, robot), perturbation.noise, generator)
        clean = encode_states(future, robot).repeat_interleave(draws, 0)
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        level = torch.randint(self.config.expert.train_steps, (len(clean),), generator=generator,
                              device=clean.device)
        conditioning = self.expert.observe(features, robot, horizon=clean.shape[2], history=history)
        if draws > 1:
            conditioning = conditioning.repeated(draws)
        size = self.config.expert.translation_noise
        noisy = self._scheduler.add_noise(clean, noise_to_actions(noise, size), level)
        predicted = self.expert.predict(conditioning, noisy, level)
        of_noise = self.config.expert.prediction is Prediction.NOISE
        wanted = noise if of_noise else actions_to_noise(clean, size)
        return chunk_loss(predicted, wanted, robot.valid_arms.repeat_interleave(draws, 0))

    def sampler(self, denoising_steps: int | None = None, *, noise_scale: float = 1.0) -> 'ActionSampler':
        """For prediction with the weights as they are now."""
        return ActionSampler(self.expert, denoising_steps, noise_scale=noise_scale)


class ActionSampler:
    """Draws chunks from an expert; make a new one when its weights have changed."""

    def __init__(self, expert: Expert, denoising_steps: int | None = None, *, noise_scale: float = 1.0) -> None:
        """Prepare all that does not depend on an observation.

        Args:
            expert: with the weights that are to be used.
            denoising_steps: from noise to actions; None: the expert's.
            noise_scale: of the noise that actions start from, 0..1. At 1 they are drawn as they were learned; at 0
                the same observation always gives the same ones, in the middle of what was learned.

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
        """What all samples of B observations share."""
        return self._expert.observe(features, robot, horizon=horizon)

    @torch.inference_mode()
    def sample(self, conditioning: Conditioning, noise: Tensor, prefix: ActionPrefix | None = None) -> Tensor:
        """Actions (B * S, A, T, 10) from as much unit noise, the samples of an observation in a row."""
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
    """(B * S, T, A, 17) future states in the frame of ``robot``.

    Args:
        sampler: of the trained expert.
        features: of B observations.
        robot: where cameras and arms are.
        noise: (B * S, A, T, 10) unit noise, the S samples of an observation in a row.
        prefix: what is decided already, for as many samples.
    """
    conditioning = sampler.observe(features, robot, horizon=noise.shape[2])
    actions = sampler.sample(conditioning, noise, prefix)
    samples = len(noise) // len(robot.valid_arms)
    world_from_local = centre(robot.world_from_camera, features.camera_valid)
    local = move_robot(invert_pose(world_from_local), robot).repeated(samples)
    return move_states(world_from_local.repeat_interleave(samples, 0), decode_actions(actions, local))
