"""The gated stack of attention blocks, with its vision-language (VL) half computed once.

VL rows never see action rows and know no noise level, so what a block's actions need
of them is fixed per observation: their keys and values (:class:`KVCache`). ``remember``
runs the VL half and keeps those; ``denoise`` runs the action half against them, as often
as wanted. Exact, in training as in sampling.

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
Modulation = tuple[ScaleShift, ScaleShift]
"""Of one block: factor and shift of its first and of its second norm."""


@dataclass(frozen=True, eq=False)
class Columns:
    """The VL tokens that action rows of one kind of block see, packed to the left."""

    index: Tensor | None
    """(B, c) where they stand; None: all of them, in order."""
    visible: Visibility
    """Over the c packed columns and the n action columns."""

    def gather(self, x: Tensor) -> Tensor:
        """(B, h, L, d) to (B, h, c, d)."""
        if self.index is None:
            return x
        return x.take_along_dim(self.index[:, None, :, None], dim=2)


@dataclass(frozen=True, eq=False)
class KVCache:
    """What one block's actions see of the VL half."""

    keys: Tensor
    """(B, h, c, d)."""
    values: Tensor
    """(B, h, c, d)."""
    visible: Visibility

    def extended(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """With the actions' own keys and values (B, h, n, d) behind."""
        return torch.cat([self.keys, k], dim=2), torch.cat([self.values, v], dim=2)

    def repeated(self, samples: int) -> 'KVCache':
        """Every observation ``samples`` times in a row."""
        return KVCache(self.keys.repeat_interleave(samples, 0), self.values.repeat_interleave(samples, 0),
                      self.visible.repeated(samples))


@dataclass(frozen=True, eq=False)
class PreallocatedKVCache(KVCache):
    """A kv_cache with room behind for the actions' keys and values, overwritten at every step.

    Sampling only: what :meth:`extended` returned last is gone with the next call.
    """

    def extended(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """With the actions' own keys and values (B, h, n, d) behind."""
        self.keys[:, :, -k.shape[2]:] = k
        self.values[:, :, -v.shape[2]:] = v
        return self.keys, self.values


def preallocate(kv_cache: KVCache, actions: int) -> PreallocatedKVCache:
    """``kv_cache`` with room for ``actions`` tokens."""
    return PreallocatedKVCache(F.pad(kv_cache.keys, (0, 0, 0, actions)), F.pad(kv_cache.values, (0, 0, 0, actions)),
                       kv_cache.visible)


def pack_columns(wanted: Tensor, action_columns: Tensor) -> Columns:
    """Of (B, L) and (B, n) bool; c is the largest count of a sample."""
    count = wanted.sum(-1, keepdim=True)
    width = int(count.max())
    if width == wanted.shape[1]:
        return Columns(None, visibility(torch.cat([wanted, action_columns], dim=-1)[:, None]))
    packed = torch.arange(width, device=wanted.device) < count
    index = torch.argsort(~wanted, dim=-1, stable=True)[:, :width]
    return Columns(index, visibility(torch.cat([packed, action_columns], dim=-1)[:, None]))


class Block(nn.Module):
    """``x += attn(norm1(x)); x += ffn(norm2(x))``, VL and action tokens normed apart."""

    def __init__(self, width: int, heads: int, kind: BlockKind) -> None:
        super().__init__()
        self.kind = kind
        self.norm1 = SplitNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = SplitNorm(width)
        self.ffn = GatedFeedForward(width)

    def modulate(self, noise_embedding: Tensor) -> Modulation:
        """Of (B, D)."""
        return self.norm1.norm_a.film(noise_embedding), self.norm2.norm_a.film(noise_embedding)

    def advance_vl(self, vl: Tensor, q: Tensor, k: Tensor, v: Tensor, scene: Scene,
                   visible: Visibility) -> Tensor:
        """The VL half (B, L, D), given its own projections."""
        vl = vl + self.attn.merge(attend(q, k, v, visible), scene.vl_encoding(self.kind))
        return vl + self.ffn(self.norm2.norm_vl(vl))

    def advance_actions(self, x: Tensor, modulation: Modulation, kv_cache: KVCache, scene: Scene) -> Tensor:
        """The action half (B, n, D)."""
        encoding = scene.action_encoding(self.kind)
        q, k, v = self.attn.project(self.norm1.norm_a(x, modulation[0]), encoding)
        x = x + self.attn.merge(attend(q, *kv_cache.extended(k, v), kv_cache.visible), encoding)
        return x + self.ffn(self.norm2.norm_a(x, modulation[1]))


class GatedStack(nn.Module):
    """Blocks, each followed by a gate that mixes the VL half with a VLM layer's feature."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        self.stage = config.stage
        self.gate = nn.Parameter(torch.zeros(config.taps, config.width))
        self.layers = nn.ModuleList(Block(config.width, config.heads, block_kind(config.stage, i))
                                    for i in range(config.blocks))

    @property
    def blocks(self) -> list[Block]:
        """The blocks in order."""
        return [layer for layer in self.layers if isinstance(layer, Block)]

    def tap_after(self, block: int) -> int:
        """Which tap, and which row of the gate, mixes behind ``block``; the prior uses every second."""
        return block if self.stage is TrainingStage.VLA else 2 * block + 1

    def mix(self, vl: Tensor, highway: Tensor, block: int) -> Tensor:
        """``g vl + (1 - g) highway`` behind ``block``."""
        return torch.lerp(highway, vl, torch.sigmoid(self.gate[self.tap_after(block)].float()))

    def prefill(self, vl: Tensor, highway: Callable[[int], Tensor], scene: Scene) -> tuple[KVCache, ...]:
        """Run the VL half (B, L, D) float32 once; ``highway`` gives a tap's feature, shaped like it.

        Behind the last block's keys and values nothing of it is ever seen, so it stops there.
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
        """Every block's modulation for (B, D)."""
        return tuple(block.modulate(noise_embedding) for block in self.blocks)

    def denoise(self, x: Tensor, modulations: Sequence[Modulation], kv_caches: Sequence[KVCache],
                scene: Scene) -> Tensor:
        """Run the action half (B, n, D) float32."""
        for block, modulation, kv_cache in zip(self.blocks, modulations, kv_caches, strict=True):
            x = block.advance_actions(x, modulation, kv_cache, scene)
        return x


def block_kind(stage: TrainingStage, index: int) -> BlockKind:
    """In the VLA the even blocks are new, the odd ones inherited from the prior."""
    return BlockKind.READING if stage is TrainingStage.VLA and index % 2 == 0 else BlockKind.INHERITED
