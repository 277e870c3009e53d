"""What a frozen VLM says of each sample, computed once and kept on disk.

An entry is found by the sample's source, the VLM (a digest of its weights), the image size, a coarse
digest of the images in their order, and in the VLA the instruction. The digest of the images makes
augmented, cropped or shuffled ones miss instead of matching wrongly, and with them files converted anew
under an old name.

The prior reads vision tokens only, and those are free of language: its entries hold no others and do
not depend on the instruction. Taps that no block reads are left out as well.

Letters: B batch, C cameras, V vision tokens per camera, L tokens, d width, N taps, K taps kept, n tokens kept.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from apt_policy.model.batch import Images, VlFeatures
from apt_policy.model.config import TrainingStage
from apt_policy.model.vlm.bridge import VlmBridge
from apt_training.train.feature_store import TensorStore

DIGEST_STRIDE = 16
"""Of the pixels that go into the digest of an image, per axis [px]."""
HALF_LIMIT = 6e4
"""float16 ends at 65504."""
Entry = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class CacheCounts:
    """Of one cache object."""

    hits: int
    misses: int


class FeatureCache:
    """Features of samples, from disk where they are there, else from the VLM and then onto the disk."""

    def __init__(self, folder: Path, bridge: VlmBridge, stage: TrainingStage) -> None:
        self._bridge, self._stage = bridge, stage
        self._taps = kept_taps(stage, bridge.taps)
        self.identity = vlm_identity(bridge)
        self._store = TensorStore(folder / f'{self.identity[:16]}_{stage.value}')
        self._hits = self._misses = 0

    @property
    def counts(self) -> CacheCounts:
        """Since it was opened."""
        return CacheCounts(hits=self._hits, misses=self._misses)

    def features(self, images: Images, sources: Sequence[str]) -> VlFeatures:
        """Of B samples, as the expert reads them; for the prior without language tokens.

        Raises:
            OSError: an entry cannot be written.
        """
        keys = [self.key(images, index, source) for index, source in enumerate(sources)]
        entries = [self._read(key) for key in keys]
        missing = [index for index, entry in enumerate(entries) if entry is None]
        if missing:
            computed = self._bridge(pick_samples(images, missing))
            for row, index in enumerate(missing):
                entry = self._slim(computed, row)
                self._store.write(keys[index], entry)
                entries[index] = entry
        self._hits += len(keys) - len(missing)
        self._misses += len(missing)
        return self._assemble([entry for entry in entries if entry is not None], images)

    def key(self, images: Images, index: int, source: str) -> str:
        """Of sample ``index``."""
        valid = images.camera_valid[index]
        digest = hashlib.blake2b(digest_size=20)
        said = images.prompts[index] if self._stage is TrainingStage.VLA else ''
        digest.update('\0'.join([self.identity, source, said, str(images.rgb.shape[-1])]).encode())
        coarse = images.rgb[index, valid][..., ::DIGEST_STRIDE, ::DIGEST_STRIDE]
        digest.update((coarse * 255).round().to(torch.uint8).cpu().numpy().tobytes())
        digest.update(images.mask[index, valid][..., ::DIGEST_STRIDE, ::DIGEST_STRIDE].cpu().numpy().tobytes())
        return digest.hexdigest()

    def bytes_per_sample(self, *, cameras: int, side: int, text_tokens: int = 32) -> int:
        """An estimate, for a disk to be chosen before it is full."""
        tokens = cameras * self._bridge.tokens_per_camera(side)
        if self._stage is TrainingStage.VLA:
            tokens += 2 * cameras + text_tokens
        return tokens * self._bridge.width * (1 + len(self._taps)) * 2

    def _read(self, key: str) -> Entry | None:
        entry = self._store.read(key)
        if entry is not None and entry['hidden'].shape[0] != len(self._taps):
            return None
        return entry

    def _slim(self, features: VlFeatures, row: int) -> Entry:
        """What the expert reads of one sample."""
        is_vision, attended = features.is_vision[row], features.attention_mask[row]
        kept = is_vision if self._stage is TrainingStage.VA_PRIOR else attended | is_vision
        taps = torch.tensor(self._taps, dtype=torch.long, device=kept.device)
        return {'embeds': storable(features.inputs_embeds[row, kept]),
                'hidden': storable(features.hidden_states[taps, row][:, kept]),
                'attended': attended[kept].cpu(), 'is_vision': is_vision[kept].cpu()}

    def _assemble(self, entries: Sequence[Entry], images: Images) -> VlFeatures:
        """Left padded, as the VLM gives them; rows of taps that nobody reads are zero."""
        dtype = torch.float32 if self._bridge.config.dtype == 'float32' else torch.bfloat16
        length, width = max(len(entry['attended']) for entry in entries), self._bridge.width
        count = len(entries)
        embeds = torch.zeros(count, length, width, dtype=dtype)
        hidden = torch.zeros(self._bridge.taps, count, length, width, dtype=dtype)
        attended, is_vision = (torch.zeros(count, length, dtype=torch.bool) for _ in range(2))
        taps = torch.tensor(self._taps, dtype=torch.long)
        for row, entry in enumerate(entries):
            start = length - len(entry['attended'])
            embeds[row, start:] = entry['embeds']
            hidden[taps, row, start:] = entry['hidden'].to(dtype)
            attended[row, start:], is_vision[row, start:] = entry['attended'], entry['is_vision']
        return VlFeatures(inputs_embeds=embeds, hidden_states=hidden, attention_mask=attended, is_vision=is_vision,
                          norm_xy=self._bridge.token_positions(images), camera_valid=images.camera_valid)


def kept_taps(stage: TrainingStage, taps: int) -> tuple[int, ...]:
    """Taps whose feature some block mixes in; behind the last block nothing is seen."""
    return tuple(range(1, 2 * (taps // 2) - 1, 2)) if stage is TrainingStage.VA_PRIOR else tuple(range(taps - 1))


def storable(tensor: Tensor) -> Tensor:
    """On the CPU in 16 bits: bfloat16 as it is, float32 as float16 where its range suffices.

    float16 keeps 11 bits of a float32 feature where bfloat16 keeps 8; features of a bfloat16 VLM lose nothing.
    """
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.float32 and bool((tensor.abs() < HALF_LIMIT).all()):
        return tensor.half()
    return tensor.bfloat16()


def pick_samples(images: Images, rows: Sequence[int]) -> Images:
    """Some samples of a batch."""
    index = torch.tensor(list(rows), device=images.rgb.device)
    return Images(rgb=images.rgb[index], mask=images.mask[index], norm_xy=images.norm_xy[index],
                  prompts=tuple(images.prompts[row] for row in rows))


def vlm_identity(bridge: VlmBridge) -> str:
    """A digest of the VLM's weights, and of how deep it is tapped."""
    digest = hashlib.blake2b(digest_size=20)
    digest.update(f'{bridge.config.name} {bridge.config.dtype} {bridge.taps}'.encode())
    for name, value in bridge.model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
