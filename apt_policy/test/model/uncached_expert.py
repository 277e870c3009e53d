"""Test oracle: the expert without a cache.

The whole sequence, VL and action tokens, runs through every block at every step, as in the released code. It is also
the baseline of ``benchmarks/bench_expert_cache.py``. It is written from the formulas again: it shares the expert's
parameters, norms, MLPs and feed-forwards, but neither its cache nor its masks, position encodings and attention.

Letters: B batch, L vision-language (VL) tokens, A arms, S = H + T tokens of an arm, n = A * S
action tokens, N = L + n, h heads, d channels of a head, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from apt_policy.model.actions import camera_from_ee, encode_states
from apt_policy.model.attention import ROPE_BASE, Attention
from apt_policy.model.batch import LANGUAGE, PAD, VISION, RobotState, VlFeatures
from apt_policy.model.expert import Expert
from apt_policy.model.frames import invert_pose
from apt_policy.model.fusion import Block, Modulation
from apt_policy.model.scene import BlockKind, vision_poses

ACTION = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class UncachedConditioning:
    """What is projected once per observation even here."""

    features: VlFeatures
    robot: RobotState
    """In the local frame."""
    start: Tensor
    """(B, L, D)."""
    highways: list[Tensor]
    """One (B, L, D) for each tap."""
    history: Tensor
    """(B, A, H, D) tokens."""
    ee_in_reference: Tensor
    """(B, A, 1, 3) [m]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class JointTables:
    """About the joint sequence of N tokens."""

    allowed: dict[BlockKind, Tensor]
    """(B, 1, N, N) bool."""
    cos: Tensor
    """(B, N, 1, d/4), and the sines alike."""
    sin: Tensor
    pose: Tensor
    """(B, N, 4, 4) world_from_token."""
    inverse: Tensor
    """Of the poses."""


def observe_uncached(expert: Expert, features: VlFeatures, robot: RobotState) -> UncachedConditioning:
    """The counterpart of :meth:`Expert.observe`: no block is run yet."""
    robot = expert.local_robot(features, robot)
    ee_in_reference = camera_from_ee(robot)[..., None, :3, 3]
    encoder = expert.context_encoder
    return UncachedConditioning(
        features=features, robot=robot, start=encoder.embed(features), ee_in_reference=ee_in_reference,
        highways=[encoder.highway(features, tap) for tap in range(expert.config.taps)],
        history=expert.dp_head.history_tokens(encode_states(robot.history, robot), ee_in_reference))


def predict_uncached(expert: Expert, context: UncachedConditioning, noisy: Tensor, level: Tensor) -> Tensor:
    """The counterpart of :meth:`Expert.predict`: every row of every block, every time."""
    head, stack, length = expert.dp_head, expert.dp_head.traj_context_attn, context.start.shape[1]
    future = head.future_tokens(noisy, context.ee_in_reference)
    tokens = torch.cat([context.history, future], dim=2)
    x = torch.cat([context.start, tokens.flatten(1, 2)], dim=1)
    tables = joint_tables(context, tokens.shape[2], expert.config.head_dim)
    for i, (block, modulation) in enumerate(zip(stack.blocks, head.modulate(level), strict=True)):
        x = _advance(block, x, length, modulation, tables)
        tap = stack.tap_after(i)
        gate = torch.sigmoid(stack.gate[tap].float())
        mixed = gate * x[:, :length] + (1 - gate) * context.highways[tap]
        x = torch.cat([mixed, x[:, length:]], dim=1)
    done = x[:, length:].unflatten(1, tokens.shape[1:3])
    return head.decode_tokens(done[:, :, context.history.shape[2]:])


def joint_tables(context: UncachedConditioning, per_arm: int, head_dim: int) -> JointTables:
    """Masks and positions of the joint sequence; ``per_arm`` is S."""
    features, robot = context.features, context.robot
    arms = robot.valid_arms.shape[1]
    acting = robot.valid_arms.repeat_interleave(per_arm, dim=1)
    modality = torch.cat([features.modality, torch.where(acting, ACTION, PAD)], dim=1)
    is_action = torch.arange(modality.shape[1], device=modality.device) >= features.modality.shape[1]

    visible = (modality != PAD)[:, None] & ~(~is_action[:, None] & is_action)
    speaks, sees = modality == LANGUAGE, (modality == VISION) | is_action
    mixes = (sees[:, :, None] & speaks[:, None]) | (speaks[:, :, None] & sees[:, None])

    times = features.positions[:, -1:] + 1 + torch.arange(per_arm, device=modality.device)
    positions = torch.cat([features.positions, times.repeat(1, arms)], dim=1)
    half = head_dim // 2
    frequency = ROPE_BASE ** (-torch.arange(0, half, 2, device=modality.device).float() / half)
    angle = (positions[..., None].float() * frequency)[:, :, None]
    pose = torch.cat([vision_poses(features, robot.world_from_camera),
                      robot.world_from_reference.repeat_interleave(per_arm, dim=1)], dim=1)
    return JointTables(allowed={BlockKind.READING: visible[:, None],
                                BlockKind.INHERITED: (visible & ~mixes)[:, None]},
                       cos=angle.cos(), sin=angle.sin(), pose=pose, inverse=invert_pose(pose))


def _advance(block: Block, x: Tensor, length: int, modulation: Modulation, tables: JointTables) -> Tensor:
    first, second = modulation
    normed = torch.cat([block.norm1.norm_vl(x[:, :length]), block.norm1.norm_a(x[:, length:], first)], dim=1)
    x = x + _attend(block.attn, normed, block.kind, tables)
    normed = torch.cat([block.norm2.norm_vl(x[:, :length]), block.norm2.norm_a(x[:, length:], second)], dim=1)
    return x + block.ffn(normed)


def _attend(attention: Attention, x: Tensor, kind: BlockKind, tables: JointTables) -> Tensor:
    q, k, v = attention.to_qkv(x).unflatten(-1, (3, attention.heads, -1)).unbind(-3)
    q, k = attention.q_norm(q), attention.k_norm(k)
    if kind is BlockKind.READING:
        q, k = _rotate(q, tables), _rotate(k, tables)
    else:
        transposed = tables.pose.transpose(-1, -2)
        q, k, v = _turn(q, tables.inverse), _turn(k, transposed), _turn(v, transposed)
    allowed = tables.allowed[kind]
    seeing = allowed.any(-1, keepdim=True)
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
                                         attn_mask=allowed | ~seeing)
    out = torch.where(seeing, out, 0.0).transpose(1, 2)
    if kind is BlockKind.INHERITED:
        out = _turn(out, tables.inverse.transpose(-1, -2))
    return attention.to_out(out.flatten(-2))


def _rotate(x: Tensor, tables: JointTables) -> Tensor:
    """RoPE on the second half of (B, N, h, d)."""
    plain, turned = x.chunk(2, dim=-1)
    x0, x1 = turned[..., ::2], turned[..., 1::2]
    pairs = torch.stack([x0 * tables.cos - x1 * tables.sin, x0 * tables.sin + x1 * tables.cos], dim=-1)
    return torch.cat([plain, pairs.flatten(-2)], dim=-1)


def _turn(x: Tensor, matrices: Tensor) -> Tensor:
    """Row vectors in groups of 4 in the first half of (B, N, h, d), times (B, N, 4, 4)."""
    turned, plain = x.chunk(2, dim=-1)
    groups = torch.einsum('bnhgi,bnij->bnhgj', turned.unflatten(-1, (-1, 4)), matrices)
    return torch.cat([groups.flatten(-2), plain], dim=-1)
