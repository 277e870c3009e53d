"""Attention masks and position encodings of an observation, computed once from modality, poses and masks.

There are no parameters here.

Letters: B batch, L vision-language (VL) tokens, A arms, S = H + T tokens of an arm
(history, then future), n = A * S action tokens, C cameras, V vision tokens per camera.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

import torch
from torch import Tensor

from apt_policy.model.attention import PositionEncoding, Prope, Rope, Visibility, prope, rope, visibility
from apt_policy.model.batch import LANGUAGE, VISION, RobotState, VlFeatures


class BlockKind(Enum):
    """Kind of a block, which determines its position encoding and mask."""

    READING = 'reading'
    """Block that is new in the VLA: RoPE, attention to every valid token."""
    INHERITED = 'inherited'
    """Block of the prior: PRoPE, mask that separates language from vision and action ("dilated")."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Masks and position encodings of one batch of observations."""

    vl_rope: Rope
    vl_prope: Prope
    action_rope: Rope
    action_prope: Prope
    vl_allowed: Mapping[BlockKind, Tensor]
    """(B, L or 1, L) bool: VL tokens that a VL token attends to; it never attends to actions."""
    vl_columns: Mapping[BlockKind, Tensor]
    """(B, L) bool: VL tokens that action tokens attend to."""
    action_columns: Tensor
    """(B, n) bool: action tokens of present arms, which all action tokens attend to."""

    def repeated(self, samples: int) -> 'Scene':
        """Repeat the encodings of action tokens, every observation ``samples`` times in a row."""
        return replace(self, action_rope=self.action_rope.repeated(samples),
                       action_prope=self.action_prope.repeated(samples))

    def vl_encoding(self, kind: BlockKind) -> PositionEncoding:
        """Return the position encoding of VL tokens in a block of ``kind``."""
        return self.vl_rope if kind is BlockKind.READING else self.vl_prope

    def action_encoding(self, kind: BlockKind) -> PositionEncoding:
        """Return the position encoding of action tokens in a block of ``kind``."""
        return self.action_rope if kind is BlockKind.READING else self.action_prope


def build_scene(features: VlFeatures, robot: RobotState, *, head_dim: int, horizon: int) -> Scene:
    """Build the scene; poses of ``robot`` should already be centred near the origin.

    Args:
        features: features of the VLM.
        robot: poses of cameras and arms.
        head_dim: channels of a head (d).
        horizon: number of future states in a chunk (T).
    """
    valid, modality, positions = features.attention_mask, features.modality, features.positions
    arms, steps = robot.valid_arms.shape[1], robot.history.shape[1] + horizon
    times = positions[:, -1:] + 1 + torch.arange(steps, device=positions.device)
    token_poses = vision_poses(features, robot.world_from_camera)
    vision, language = modality == VISION, modality == LANGUAGE
    dilated = (valid[:, None] & ~(vision[:, :, None] & language[:, None])
               & ~(language[:, :, None] & vision[:, None]))
    return Scene(
        vl_rope=rope(positions, head_dim), vl_prope=prope(token_poses),
        action_rope=rope(times.repeat(1, arms), head_dim), action_prope=prope(robot.world_from_reference),
        vl_allowed={BlockKind.READING: valid[:, None], BlockKind.INHERITED: dilated},
        vl_columns={BlockKind.READING: valid, BlockKind.INHERITED: valid & ~language},
        action_columns=robot.valid_arms.repeat_interleave(steps, dim=1))


def vl_visibility(scene: Scene) -> dict[BlockKind, Visibility]:
    """Build the attention masks of VL tokens by block kind."""
    return {kind: visibility(allowed) for kind, allowed in scene.vl_allowed.items()}


def vision_poses(features: VlFeatures, world_from_camera: Tensor) -> Tensor:
    """Return (B, L, 4, 4) camera poses of vision tokens; the identity for other tokens."""
    camera, _ = vision_places(features)
    poses = world_from_camera.float().take_along_dim(camera[..., None, None], dim=1)
    identity = torch.eye(4, device=poses.device)
    return torch.where(features.is_vision[..., None, None], poses, identity)


def vision_places(features: VlFeatures) -> tuple[Tensor, Tensor]:
    """Return (B, L) camera indices and (B, L) indices within the camera; undefined for other than vision tokens.

    Vision tokens belong to the valid cameras in order.
    """
    cameras, per_camera = features.norm_xy.shape[1:3]
    ordinal = (features.is_vision.long().cumsum(-1) - 1).clamp(min=0)
    rank = (ordinal // per_camera).clamp(max=cameras - 1)
    valid_first = torch.argsort(~features.camera_valid, dim=-1, stable=True)
    return valid_first.gather(1, rank), ordinal % per_camera
