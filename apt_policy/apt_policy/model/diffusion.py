"""Diffusion of action chunks: schedule, loss, and denoising by DDIM.

``diffusers.DDIMScheduler`` has the constants of the released weights. The model is a callable.

Letters: B batch, A arms, T horizon, K prefix steps; actions are (B, A, T, 10).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from apt_policy.model.config import Prediction

POSITION_WEIGHT, ROTATION_WEIGHT, GRIPPER_WEIGHT = 30.0, 10.0, 10.0
"""Weights of the loss terms."""

Predictor = Callable[[Tensor, int], Tensor]
"""Model: from noisy actions (B, A, T, 10) and the index of the denoising step to predicted noise or actions."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ActionPrefix:
    """Fixed prefix of a chunk (real-time chunking)."""

    actions: Tensor
    """(B, A, K, 10)."""
    arms: Tensor
    """(B, A) bool, arms with a fixed prefix; the other arms are free."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Loss:
    """L1 errors of the prediction, means over valid arms; scalars."""

    position: Tensor
    rotation: Tensor
    gripper: Tensor

    @property
    def total(self) -> Tensor:
        """Weighted sum that is minimised."""
        return (POSITION_WEIGHT * self.position + ROTATION_WEIGHT * self.rotation
                + GRIPPER_WEIGHT * self.gripper)


def make_scheduler(train_steps: int, denoising_steps: int,
                   prediction: Prediction = Prediction.NOISE) -> DDIMScheduler:
    """Build the scheduler: squared cosine, no clipping; timesteps 95, 90 .. 0 for 20 of 100 steps."""
    scheduler = DDIMScheduler(
        num_train_timesteps=train_steps, beta_schedule='squaredcos_cap_v2', prediction_type=prediction.value,
        clip_sample=False, set_alpha_to_one=True, steps_offset=0, timestep_spacing='leading')
    scheduler.set_timesteps(denoising_steps)
    return scheduler


def chunk_loss(predicted: Tensor, wanted: Tensor, valid_arms: Tensor) -> Loss:
    """Compute the loss between (B, A, T, 10) tensors; arms that are False in (B, A) are ignored."""
    count = valid_arms.sum().clamp(min=1) * wanted.shape[2]
    error = ((predicted - wanted).abs() * valid_arms[..., None, None]).sum((0, 1, 2)) / count
    return Loss(position=error[:3].mean(), rotation=error[3:9].mean(), gripper=error[9])


def denoise(predict: Predictor, noise: Tensor, scheduler: DDIMScheduler,
            prefix: ActionPrefix | None = None) -> Tensor:
    """Denoise (B, A, T, 10) noise to actions with eta 0; predictions are in the same units.

    The prefix is set at every step, at that step's noise level and with its own noise, so that the
    free rest is denoised consistently with it; the result contains the prefix unchanged.
    """
    x = noise.float()
    for step, timestep in enumerate(scheduler.timesteps.tolist()):
        if prefix is not None:
            known = scheduler.add_noise(prefix.actions, noise[:, :, :prefix.actions.shape[2]].float(),
                                        torch.tensor([timestep]))
            x = _insert_prefix(x, known, prefix)
        x = scheduler.step(predict(x, step), timestep, x, return_dict=False)[0]
    return x if prefix is None else _insert_prefix(x, prefix.actions, prefix)


def _insert_prefix(x: Tensor, known: Tensor, prefix: ActionPrefix) -> Tensor:
    head, tail = x.split([known.shape[2], x.shape[2] - known.shape[2]], dim=2)
    return torch.cat([torch.where(prefix.arms[..., None, None], known, head), tail], dim=2)
