"""Inputs of the model as frozen dataclasses.

Letters: B batch, C cameras, V vision tokens per camera, L length of the vision-language
sequence, N taps, A arms, H history states, T horizon, S image side. A camera or an arm
that a sample lacks is padding: present in the tensors, False in its mask.
"""

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

PAD, VISION, LANGUAGE = 0, 1, 2

Batch = TypeVar('Batch', 'Images', 'VlFeatures', 'RobotState')


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """Images and instructions."""

    rgb: Tensor
    """(B, C, 3, S, S) float 0..1."""
    mask: Tensor
    """(B, C, S, S) bool, False on letterbox borders; all False for an absent camera."""
    norm_xy: Tensor
    """(B, C, 2, S, S) float32, normalised pixel coordinates x = (u - cx) / fx, y = (v - cy) / fy."""
    prompts: tuple[str, ...]
    """B raw instructions."""

    @property
    def camera_valid(self) -> Tensor:
        """(B, C) bool, True for cameras with an image."""
        return self.mask.flatten(2).any(-1)


@dataclass(frozen=True, kw_only=True, eq=False)
class VlFeatures:
    """Features of the vision-language model for the expert."""

    inputs_embeds: Tensor
    """(B, L, d) input embeddings of the language model, image features merged in."""
    hidden_states: Tensor
    """(N, B, L, d) outputs of the tapped layers."""
    attention_mask: Tensor
    """(B, L) bool, False on padding and on vision tokens whose pixels are all masked."""
    is_vision: Tensor
    """(B, L) bool; C' * V in a sample with C' valid cameras, in the cameras' order."""
    norm_xy: Tensor
    """(B, C, V, 2) float32, mean pixel coordinates of each token."""
    camera_valid: Tensor
    """(B, C) bool."""

    @property
    def modality(self) -> Tensor:
        """(B, L) PAD, VISION or LANGUAGE; chat-template tokens are language."""
        kind = torch.where(self.is_vision, VISION, LANGUAGE)
        return kind.masked_fill(~self.attention_mask, PAD)

    @property
    def positions(self) -> Tensor:
        """(B, L) int64 positions; the tokens of one image share one position and text continues from there."""
        seen = self.is_vision.long().cumsum(-1)
        place = torch.arange(self.is_vision.shape[1], device=seen.device)
        return place - (seen - 1).clamp(min=0)


@dataclass(frozen=True, kw_only=True, eq=False)
class RobotState:
    """Poses of cameras and arms; float32, all in one frame per sample."""

    world_from_camera: Tensor
    """(B, C, 4, 4)."""
    world_from_ee: Tensor
    """(B, A, 4, 4) present poses."""
    world_from_reference: Tensor
    """(B, A, 4, 4) pose of each arm's reference camera."""
    history: Tensor
    """(B, H, A, 17) states, oldest first: row-major world_from_ee and gripper 0 closed .. 1 open."""
    valid_arms: Tensor
    """(B, A) bool."""

    def repeated(self, samples: int) -> 'RobotState':
        """Repeat every sample of the batch ``samples`` times in a row."""
        return RobotState(**{f.name: getattr(self, f.name).repeat_interleave(samples, 0)
                             for f in fields(self)})


def move(batch: Batch, device: torch.device) -> Batch:
    """Move all tensors of a batch to ``device``."""
    tensors = {f.name: getattr(batch, f.name).to(device) for f in fields(batch)
               if isinstance(getattr(batch, f.name), Tensor)}
    return replace(batch, **tensors)
