"""Layers of the expert: norms, noise-level embedding, MLPs.

Parameter names are those of published checkpoints.

Letters: B batch, n tokens, D width. Norms compute in float32 and return the dtype
of their parameters, so tokens may stay float32 between bfloat16 layers.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPS = 1e-6
"""Epsilon of all RMS norms, as in published weights."""


class RmsNorm(nn.Module):
    """Affine RMS norm over the last axis."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., width)."""
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), NORM_EPS).to(self.weight.dtype)


class FiLM(nn.Module):
    """Feature-wise linear modulation by the noise embedding; initialised as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, noise_embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Map a noise embedding (B, D) to the factor ``1 + scale`` and the shift, each (B, 1, D) float32."""
        scale, shift = self.modulation(noise_embedding)[:, None].float().chunk(2, dim=-1)
        return 1.0 + scale, shift


class FiLMNorm(nn.Module):
    """RMS norm without weights, then :class:`FiLM`; the norm of action tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.film = FiLM(width)

    def forward(self, x: Tensor, modulation: tuple[Tensor, Tensor]) -> Tensor:
        """Normalise and modulate (B, n, D) with the output of :class:`FiLM`."""
        factor, shift = modulation
        normed = F.rms_norm(x.float(), x.shape[-1:], eps=NORM_EPS)
        return torch.addcmul(shift, normed, factor).to(self.film.modulation.weight.dtype)


class SplitNorm(nn.Module):
    """Separate norms of vision-language and action tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_vl = RmsNorm(width)
        self.norm_a = FiLMNorm(width)


class GatedFeedForward(nn.Module):
    """Gated MLP ``down(gelu_tanh(gate(x)) * up(x))``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, 2 * width, bias=False)
        self.up_proj = nn.Linear(width, 2 * width, bias=False)
        self.down_proj = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the MLP to (..., D)."""
        return self.down_proj(F.gelu(self.gate_proj(x), approximate='tanh') * self.up_proj(x))


class NoiseLevelEmbedding(nn.Module):
    """Sinusoidal embedding ``[sin, cos]`` of the noise level, frequencies ``1000 ** (-i / (D/2 - 1))``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.waves = width // 2

    def forward(self, level: Tensor) -> Tensor:
        """Embed (B,) levels 0..99 to (B, D) float32."""
        ladder = torch.arange(self.waves, device=level.device, dtype=torch.float32)
        angles = level.float()[:, None] * torch.exp(ladder * (-math.log(1000.0) / (self.waves - 1)))
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


def mlp(inputs: int, width: int, *, zero_last: bool = False) -> nn.Sequential:
    """Build an MLP: Linear, LayerNorm, exact GELU, Linear; ``zero_last`` initialises its output to zero."""
    last = nn.Linear(width, width)
    if zero_last:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, width), nn.LayerNorm(width), nn.GELU(), last)
