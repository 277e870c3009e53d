"""Attention of the expert: projections, the two position encodings, masks.

Every head's second half may carry RoPE (1-D positions), its first half PRoPE (poses,
Li et al. 2025, "Cameras as relative positional encoding"); an encoding leaves the
other half as it is. Knows tokens by position only: what they mean is ``scene``'s.

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


class PositionEncoding(Protocol):
    """Where a set of n tokens stands."""

    def encode_qkv(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, n, h, d) before attention."""

    def decode_output(self, x: Tensor) -> Tensor:
        """What attention gave, (B, n, h, d)."""


@dataclass(frozen=True, eq=False)
class Rope:
    """Rotary encoding of 1-D positions."""

    phase: Tensor
    """(B, n, 1, d/2) complex64, one number per pair of channels; 1 in the head's first half."""

    def repeated(self, samples: int) -> 'Rope':
        """Every sample of the batch ``samples`` times in a row."""
        return Rope(self.phase.repeat_interleave(samples, 0))

    def encode_qkv(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys rotated."""
        return self._rotate(q), self._rotate(k), v

    def decode_output(self, x: Tensor) -> Tensor:
        """Unchanged."""
        return x

    def _rotate(self, x: Tensor) -> Tensor:
        """Interleaved pairs: (x0 cos - x1 sin, x0 sin + x1 cos)."""
        pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * self.phase).flatten(-2)


@dataclass(frozen=True, eq=False)
class Prope:
    """Relative poses: row vectors in groups of 4, P = world_from_token, (B, R, 4, 4) each.

    R divides n; every run of n / R tokens shares one pose.
    """

    query: Tensor
    """inv(P)."""
    key: Tensor
    """P^T, for keys and values."""
    output: Tensor
    """inv(P)^T."""

    def repeated(self, samples: int) -> 'Prope':
        """Every sample of the batch ``samples`` times in a row."""
        return Prope(*(m.repeat_interleave(samples, 0) for m in (self.query, self.key, self.output)))

    def encode_qkv(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``q inv(P)``, ``k P^T``, ``v P^T``."""
        return turn_groups(q, self.query), turn_groups(k, self.key), turn_groups(v, self.key)

    def decode_output(self, x: Tensor) -> Tensor:
        """``o inv(P)^T``."""
        return turn_groups(x, self.output)


def rope(positions: Tensor, head_dim: int) -> Rope:
    """Encoding of (B, n) integer positions; frequencies ``1e4 ** (-2 i / (d / 2))``."""
    half = head_dim // 2
    ladder = torch.arange(0, half, 2, device=positions.device, dtype=torch.float32) / half
    angles = positions[..., None].float() * ROPE_BASE ** -ladder
    turned = torch.polar(torch.ones_like(angles), angles)
    return Rope(torch.cat([torch.ones_like(turned), turned], dim=-1)[:, :, None])


@in_float32
def prope(world_from_token: Tensor) -> Prope:
    """Encoding of (B, R, 4, 4) poses."""
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
    """Which columns a row attends to; None where nothing is hidden."""

    allowed: Tensor | None
    """(B, 1, rows or 1, columns) bool, all true in rows that see nothing."""
    seeing: Tensor | None
    """(B, 1, rows or 1, 1) bool, false in rows that see nothing."""

    def repeated(self, samples: int) -> 'Visibility':
        """Every sample of the batch ``samples`` times in a row."""
        return Visibility(*(None if table is None else table.repeat_interleave(samples, 0)
                            for table in (self.allowed, self.seeing)))


def visibility(allowed: Tensor) -> Visibility:
    """Of (B, rows or 1, columns) bool.

    Asking whether anything is hidden waits for the device, so this is for tables that are made
    once per observation.
    """
    allowed = allowed[:, None]
    if bool(allowed.all()):
        return Visibility(None, None)
    seeing = allowed.any(-1, keepdim=True)
    if bool(seeing.all()):
        return Visibility(allowed, None)
    return Visibility(allowed | ~seeing, seeing)


def attend(q: Tensor, k: Tensor, v: Tensor, visible: Visibility) -> Tensor:
    """Softmax attention over (B, h, n, d); a row that sees nothing gives 0."""
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=visible.allowed)
    # A softmax over nothing is NaN: such a row looked at everything, and is blanked here.
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
        """(B, n, D) to queries, keys, values (B, h, n, d)."""
        q, k, v = self.to_qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        turned = encoding.encode_qkv(self.q_norm(q), self.k_norm(k), v)
        q, k, v = (t.to(v.dtype).transpose(1, 2) for t in turned)
        return q, k, v

    def merge(self, out: Tensor, encoding: PositionEncoding) -> Tensor:
        """(B, h, n, d) of :func:`attend` back to (B, n, D)."""
        turned = encoding.decode_output(out.transpose(1, 2))
        return self.to_out(turned.to(out.dtype).flatten(-2))
