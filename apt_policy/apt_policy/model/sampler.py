"""Sampling action chunks fast, with weights that no longer change.

Per schedule: what the noise levels do to action tokens. Per observation: the cached
keys and values (``expert.observe``). Per step: the action half alone. Knows nothing of
the VLM or of the robot's frames.

Letters: B observations, S samples of each, A arms, T horizon.
"""

from dataclasses import replace

import torch
from torch import Tensor

from apt_policy.model.actions import noise_to_actions
from apt_policy.model.batch import RobotState, VlFeatures
from apt_policy.model.config import check_noise_scale
from apt_policy.model.diffusion import Held, denoise, make_scheduler
from apt_policy.model.expert import Context, Expert
from apt_policy.model.fusion import with_room
from apt_policy.model.packed import can_pack, pack


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
    def observe(self, features: VlFeatures, robot: RobotState, *, horizon: int) -> Context:
        """What all samples of B observations share."""
        return self._expert.observe(features, robot, horizon=horizon)

    @torch.inference_mode()
    def sample(self, context: Context, noise: Tensor, held: Held | None = None) -> Tensor:
        """Actions (B * S, A, T, 10) from as much unit noise, the samples of an observation in a row."""
        observations, arms, history = context.history.shape[:3]
        if len(noise) != observations:
            context = context.repeated(len(noise) // observations)
        tokens = arms * (history + noise.shape[2])
        context = replace(context, memories=tuple(with_room(m, tokens) for m in context.memories))
        size, noise = self._expert.config.translation_noise, noise * self._noise_scale
        return denoise(
            lambda x, step: noise_to_actions(self._expert.denoise(context, x, self._modulations[step]), size),
            noise_to_actions(noise, size), self.scheduler, held)
