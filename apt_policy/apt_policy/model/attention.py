"""Attention of the expert: projections, the two position encodings, masks.

RoPE (1-D positions) is applied to the second half of a head, PRoPE (poses, Li et al. 2025,
"Cameras as relative positional encoding") to the first half; an encoding leaves the
other half unchanged. ``scene`` builds the tables.

Letters: B batch, n tokens, h heads, d channels of a head, R runs of equal pose.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from apt_policy.model.frames import in_float32, invert_pose
from apt_policy.model.layers import RmsNorm

ROPE_BASE = 1e4
"""Base of the RoPE frequencies, as in published weights."""


class PositionEncoding(Protocol):
    """Position encoding of n tokens."""

    def encode_qkv(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode queries, keys and values (B, n, h, d) before attention."""

    def decode_output(self, x: Tensor) -> Tensor:
        """Decode the output of attention (B, n, h, d)."""


@dataclass(frozen=True, eq=False)
class Rope:
    """Rotary encoding of 1-D positions."""

    phase: Tensor
    """(B, n, 1, d/2) complex64, one phase per pair of channels; 1 in the head's first half."""

    def repeated(self, samples: int) -> 'Rope':
        """Repeat every sample of the batch ``samples`` times in a row."""
        return Rope(self.phase.repeat_interleave(samples, 0))

    def encode_qkv(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotate queries and keys."""
        return self._rotate(q), self._rotate(k), v

    def decode_output(self, x: Tensor) -> Tensor:
        """Return the output unchanged."""
        return x

    def _rotate(self, x: Tensor) -> Tensor:
        """Rotate interleaved pairs: (x0 cos - x1 sin, x0 sin + x1 cos)."""
        pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * self.phase).flatten(-2)


@dataclass(frozen=True, eq=False)
class Prope:
    """Encoding of relative poses: row vectors in groups of 4, P = world_from_token, (B, R, 4, 4) each.

    R divides n; every run of n / R tokens shares one pose.
    """

    query: Tensor
    """inv(P)."""
    key: Tensor
    """P^T, for keys and values."""
    output: Tensor
    """inv(P)^T."""

    def repeated(self, samples: int) -> 'Prope':
        """Repeat every sample of the batch ``samples`` times in a row."""
        return Prope(*(m.repeat_interleave(samples, 0) for m in (self.query, self.key, self.output)))

    def encode_qkv(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute ``q inv(P)``, ``k P^T``, ``v P^T``."""
        return turn_groups(q, self.query), turn_groups(k, self.key), turn_groups(v, self.key)

    def decode_output(self, x: Tensor) -> Tensor:
        """Compute ``o inv(P)^T``."""
        return turn_groups(x, self.output)


def rope(positions: Tensor, head_dim: int) -> Rope:
    """Build the encoding of (B, n) integer positions; frequencies ``1e4 ** (-2 i / (d / 2))``."""
    half = head_dim // 2
    ladder = torch.arange(0, half, 2, device=positions.device, dtype=torch.float32) / half
    angles = positions[..., None].float() * ROPE_BASE ** -ladder
    turned = torch.polar(torch.ones_like(angles), angles)
    return Rope(torch.cat([torch.ones_like(turned), turned], dim=-1)[:, :, None])


@in_float32
def prope(world_from_token: Tensor) -> Prope:
    """Build the encoding of (B, R, 4, 4) poses."""
    inverse = invert_pose(world_from_token.float())
    return Prope(inverse, world_from_token.float().transpose(-1, -2), inverse.transpose(-1, -2))


@in_float32
def turn_groups(x: Tensor, matrices: Tensor) -> Tensor:
    """Multiply the first half of each head of (B, n, h, d), in groups of 4, by (B, R, 4, 4)."""
    first, second = x.float().chunk(2, dim=-1)
    runs = first.reshape(*matrices.shape[:2], -1, 4)
    return torch.cat([(runs @ matrices).view(first.shape), second], dim=-1)


@dataclass(frozen=True, eq=False)
class Visibility:
    """Attention mask; None if nothing is masked."""

    allowed: Tensor | None
    """(B, 1, rows or 1, columns) bool; all True in rows that attend to nothing."""
    seeing: Tensor | None
    """(B, 1, rows or 1, 1) bool; False in rows that attend to nothing."""

    def repeated(self, samples: int) -> 'Visibility':
        """Repeat every sample of the batch ``samples`` times in a row."""
        return Visibility(*(None if table is None else table.repeat_interleave(samples, 0)
                            for table in (self.allowed, self.seeing)))


def visibility(allowed: Tensor) -> Visibility:
    """Build the mask of a (B, rows or 1, columns) bool table.

    The check for masked entries waits for the device, so call it once per observation.
    """
    allowed = allowed[:, None]
    if bool(allowed.all()):
        return Visibility(None, None)
    seeing = allowed.any(-1, keepdim=True)
    if bool(seeing.all()):
        return Visibility(allowed, None)
    return Visibility(allowed | ~seeing, seeing)


def attend(q: Tensor, k: Tensor, v: Tensor, visible: Visibility) -> Tensor:
    """Compute softmax attention over (B, h, n, d); a row that attends to nothing gives 0."""
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=visible.allowed)
    # A softmax over nothing is NaN, so such a row attends to everything and is set to 0 here.
    return out if visible.seeing is None else out.masked_fill(~visible.seeing, 0.0)


class Attention(nn.Module):
    """Projections around :func:`attend`; q and k are RMS-normed before any encoding."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(width, 3 * width)
        self.q_norm = RmsNorm(width // heads)
        self.k_norm = RmsNorm(width // heads)
        self.to_out = nn.Linear(width, width)

    def project(self, x: Tensor, encoding: PositionEncoding) -> tuple[Tensor, Tensor, Tensor]:
        """Project (B, n, D) to encoded queries, keys, values (B, h, n, d)."""
        q, k, v = self.to_qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        turned = encoding.encode_qkv(self.q_norm(q), self.k_norm(k), v)
        q, k, v = (t.to(v.dtype).transpose(1, 2) for t in turned)
        return q, k, v

    def merge(self, out: Tensor, encoding: PositionEncoding) -> Tensor:
        """Project the output (B, h, n, d) of :func:`attend` to (B, n, D)."""
        turned = encoding.decode_output(out.transpose(1, 2))
        return self.to_out(turned.to(out.dtype).flatten(-2))
