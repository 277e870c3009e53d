"""Gated stack of attention blocks, with its vision-language (VL) half computed once.

VL tokens attend neither to action tokens nor to the noise level, so their keys and values are
constant per observation and cached (:class:`KVCache`). ``prefill`` runs the VL half and fills
the caches; ``denoise`` runs the action half with them, any number of times. The result is exact, in
training and in sampling.

Letters: B batch, L VL tokens, n action tokens, D width, h heads, d channels of a head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from apt_policy.model.attention import Attention, Visibility, attend, visibility
from apt_policy.model.config import ExpertConfig, TrainingStage
from apt_policy.model.layers import GatedFeedForward, SplitNorm
from apt_policy.model.scene import BlockKind, Scene, vl_visibility

ScaleShift = tuple[Tensor, Tensor]
"""Factor and shift of one FiLM layer."""
Modulation = tuple[ScaleShift, ScaleShift]
"""Factor and shift of the first and of the second norm of one block."""


@dataclass(frozen=True, eq=False)
class Columns:
    """VL tokens that action tokens attend to in one kind of block, packed to the left."""

    index: Tensor | None
    """(B, c) indices of the tokens; None for all of them in order."""
    visible: Visibility
    """Attention mask over the c packed columns and the n action columns."""

    def gather(self, x: Tensor) -> Tensor:
        """Gather the packed tokens: (B, h, L, d) to (B, h, c, d)."""
        if self.index is None:
            return x
        return x.take_along_dim(self.index[:, None, :, None], dim=2)


@dataclass(frozen=True, eq=False)
class KVCache:
    """Cached keys and values of the VL tokens that the action tokens of one block attend to."""

    keys: Tensor
    """(B, h, c, d)."""
    values: Tensor
    """(B, h, c, d)."""
    visible: Visibility

    def extended(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append the action tokens' keys and values (B, h, n, d)."""
        return torch.cat([self.keys, k], dim=2), torch.cat([self.values, v], dim=2)

    def repeated(self, samples: int) -> 'KVCache':
        """Repeat every observation ``samples`` times in a row."""
        return KVCache(self.keys.repeat_interleave(samples, 0), self.values.repeat_interleave(samples, 0),
                      self.visible.repeated(samples))


@dataclass(frozen=True, eq=False)
class PreallocatedKVCache(KVCache):
    """Key-value cache with preallocated space for the action tokens, overwritten at every step.

    For sampling only: the next call of :meth:`extended` overwrites the tensors of the last one.
    """

    def extended(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append the action tokens' keys and values (B, h, n, d)."""
        self.keys[:, :, -k.shape[2]:] = k
        self.values[:, :, -v.shape[2]:] = v
        return self.keys, self.values


def preallocate(kv_cache: KVCache, actions: int) -> PreallocatedKVCache:
    """Copy ``kv_cache`` with space for ``actions`` action tokens."""
    return PreallocatedKVCache(F.pad(kv_cache.keys, (0, 0, 0, actions)), F.pad(kv_cache.values, (0, 0, 0, actions)),
                       kv_cache.visible)


def pack_columns(wanted: Tensor, action_columns: Tensor) -> Columns:
    """Pack the True columns of (B, L), and append the action columns (B, n); c is the largest count of a sample."""
    count = wanted.sum(-1, keepdim=True)
    width = int(count.max())
    if width == wanted.shape[1]:
        return Columns(None, visibility(torch.cat([wanted, action_columns], dim=-1)[:, None]))
    packed = torch.arange(width, device=wanted.device) < count
    index = torch.argsort(~wanted, dim=-1, stable=True)[:, :width]
    return Columns(index, visibility(torch.cat([packed, action_columns], dim=-1)[:, None]))


class Block(nn.Module):
    """Transformer block ``x += attn(norm1(x)); x += ffn(norm2(x))`` with separate norms of VL and action tokens."""

    def __init__(self, width: int, heads: int, kind: BlockKind) -> None:
        super().__init__()
        self.kind = kind
        self.norm1 = SplitNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = SplitNorm(width)
        self.ffn = GatedFeedForward(width)

    def modulate(self, noise_embedding: Tensor) -> Modulation:
        """Compute the modulation of a noise embedding (B, D)."""
        return self.norm1.norm_a.film(noise_embedding), self.norm2.norm_a.film(noise_embedding)

    def advance_vl(self, vl: Tensor, q: Tensor, k: Tensor, v: Tensor, scene: Scene,
                   visible: Visibility) -> Tensor:
        """Advance the VL half (B, L, D), given its projections."""
        vl = vl + self.attn.merge(attend(q, k, v, visible), scene.vl_encoding(self.kind))
        return vl + self.ffn(self.norm2.norm_vl(vl))

    def advance_actions(self, x: Tensor, modulation: Modulation, kv_cache: KVCache, scene: Scene) -> Tensor:
        """Advance the action half (B, n, D)."""
        encoding = scene.action_encoding(self.kind)
        q, k, v = self.attn.project(self.norm1.norm_a(x, modulation[0]), encoding)
        x = x + self.attn.merge(attend(q, *kv_cache.extended(k, v), kv_cache.visible), encoding)
        return x + self.ffn(self.norm2.norm_a(x, modulation[1]))


class GatedStack(nn.Module):
    """Stack of blocks, each followed by a gate that mixes the VL half with a VLM layer's features."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        self.stage = config.stage
        self.gate = nn.Parameter(torch.zeros(config.taps, config.width))
        self.layers = nn.ModuleList(Block(config.width, config.heads, block_kind(config.stage, i))
                                    for i in range(config.blocks))

    @property
    def blocks(self) -> list[Block]:
        """Blocks in order."""
        return [layer for layer in self.layers if isinstance(layer, Block)]

    def tap_after(self, block: int) -> int:
        """Return the index of the tap, and of the gate's row, after ``block``; the prior uses every second tap."""
        return block if self.stage is TrainingStage.VLA else 2 * block + 1

    def mix(self, vl: Tensor, highway: Tensor, block: int) -> Tensor:
        """Compute ``g vl + (1 - g) highway`` after ``block``."""
        return torch.lerp(highway, vl, torch.sigmoid(self.gate[self.tap_after(block)].float()))

    def prefill(self, vl: Tensor, highway: Callable[[int], Tensor], scene: Scene) -> tuple[KVCache, ...]:
        """Run the VL half (B, L, D) float32 once and return the caches of all blocks.

        Args:
            vl: VL tokens that enter the first block.
            highway: function from a tap index to its projected features (B, L, D).
            scene: masks and positions.

        The VL half ends at the last block's keys and values, because nothing after them is used.
        """
        rows = vl_visibility(scene)
        columns = {kind: pack_columns(wanted, scene.action_columns)
                   for kind, wanted in scene.vl_columns.items()}
        kv_caches = []
        for i, block in enumerate(self.blocks):
            q, k, v = block.attn.project(block.norm1.norm_vl(vl), scene.vl_encoding(block.kind))
            seen = columns[block.kind]
            kv_caches.append(KVCache(seen.gather(k), seen.gather(v), seen.visible))
            if i + 1 < len(self.layers):
                vl = self.mix(block.advance_vl(vl, q, k, v, scene, rows[block.kind]),
                              highway(self.tap_after(i)), i)
        return tuple(kv_caches)

    def modulate(self, noise_embedding: Tensor) -> tuple[Modulation, ...]:
        """Compute every block's modulation of a noise embedding (B, D)."""
        return tuple(block.modulate(noise_embedding) for block in self.blocks)

    def denoise(self, x: Tensor, modulations: Sequence[Modulation], kv_caches: Sequence[KVCache],
                scene: Scene) -> Tensor:
        """Run the action half (B, n, D) float32 through all blocks."""
        for block, modulation, kv_cache in zip(self.blocks, modulations, kv_caches, strict=True):
            x = block.advance_actions(x, modulation, kv_cache, scene)
        return x


def block_kind(stage: TrainingStage, index: int) -> BlockKind:
    """Return the kind of a block: in the VLA even blocks are new, odd ones are inherited from the prior."""
    return BlockKind.READING if stage is TrainingStage.VLA and index % 2 == 0 else BlockKind.INHERITED
