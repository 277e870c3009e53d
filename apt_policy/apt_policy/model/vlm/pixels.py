"""Patches for the Qwen3-VL vision encoder, and pixel maps averaged over its token grid.

They are computed in torch on the model's device, without torchvision; a test compares the
patches with ``Qwen2VLImageProcessorPil``.

Letters: M images, S image side, V tokens per image, B batch, C cameras.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

MIN_COVERAGE = 1e-4
"""Share of valid pixels above which a token is valid."""


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """Image format of a vision encoder (``preprocessor_config.json``)."""

    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    patch: int = 16
    """Side of a patch [px]."""
    frames: int = 2
    """Frames of a temporal patch; an image is repeated to fill it."""
    merge: int = 2
    """Number of patches merged into a token, per side."""

    @property
    def token_side(self) -> int:
        """Side of the square of pixels of one token [px]."""
        return self.patch * self.merge

    def tokens(self, side: int) -> int:
        """Count the tokens of a square image of ``side`` [px].

        Raises:
            ValueError: ``side`` is not a multiple of :attr:`token_side`.
        """
        if side % self.token_side:
            raise ValueError(f'images are {side} px wide; this vision encoder needs a multiple of '
                             f'{self.token_side}: set image_size in the robot contract')
        return (side // self.token_side) ** 2


def patches(rgb: Tensor, spec: ImageSpec) -> tuple[Tensor, Tensor]:
    """Convert images to patches.

    Args:
        rgb: (M, 3, S, S) images in 0..1.
        spec: image format of the encoder.

    Returns:
        Patches (M * S^2 / patch^2, 3 * frames * patch^2) and their grid (M, 3). Patches of one token are adjacent, as
        the encoder's merger expects.
    """
    mean, std = (rgb.new_tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    cells = rgb.shape[-1] // spec.patch
    block = (cells // spec.merge, spec.merge, spec.patch)
    # Contiguous channels make the copies below run along rows.
    grid = ((rgb.contiguous() - mean) / std).unflatten(-1, block).unflatten(2, block)
    # (M, 3, rows, row in token, y, columns, column in token, x)
    ordered = grid.permute(0, 2, 5, 3, 6, 1, 4, 7)[:, :, :, :, :, :, None]
    flat = ordered.expand(-1, -1, -1, -1, -1, -1, spec.frames, -1, -1).flatten(5).flatten(0, 4)
    return flat, torch.tensor([[1, cells, cells]], device=rgb.device).expand(len(rgb), 3)


def token_means(maps: Tensor, spec: ImageSpec) -> Tensor:
    """Average maps (B, C, K, S, S) over the pixels of each token, to (B, C, V, K)."""
    means = F.avg_pool2d(maps.float().flatten(0, 1), spec.token_side)
    return means.unflatten(0, maps.shape[:2]).flatten(3).transpose(2, 3)


def covered_tokens(mask: Tensor, spec: ImageSpec) -> Tensor:
    """Reduce a pixel mask (B, C, S, S) to a token mask (B, C, V)."""
    return token_means(mask[:, :, None], spec)[..., 0] > MIN_COVERAGE
