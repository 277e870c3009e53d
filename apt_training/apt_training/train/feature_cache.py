"""Cache on disk of a frozen VLM's features of each sample.

The key of an entry is the sample's source, a digest of the VLM's weights, the image size, a coarse digest of the images
in their order, and in the VLA the instruction. The digest of the images makes augmented, cropped, shuffled or newly
converted images miss the cache instead of matching a wrong entry.

The prior reads vision tokens only, which do not depend on language: its entries hold no other tokens and do not depend
on the instruction. Taps that no block reads are not stored.

Letters: B batch, C cameras, V vision tokens per camera, L tokens, d width, N taps, K taps kept, n tokens kept.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from apt_policy.core.atomic import atomic_file
from apt_policy.model.batch import Images, VlFeatures
from apt_policy.model.config import TrainingStage
from apt_policy.model.vlm.bridge import VlmBridge

log = logging.getLogger(__name__)

DIGEST_STRIDE = 16
"""Stride of the pixels that enter the digest of an image, per axis [px]."""
HALF_LIMIT = 6e4
"""Largest magnitude that is stored as float16, whose largest number is 65504."""
Entry = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class CacheCounts:
    """Number of hits and misses of one cache object."""

    hits: int
    misses: int


class FeatureCache:
    """Features of samples, read from disk, or computed by the VLM and then written to disk."""

    def __init__(self, folder: Path, bridge: VlmBridge, stage: TrainingStage) -> None:
        """Open a cache.

        Args:
            folder: folder that several VLMs and stages may share.
            bridge: frozen VLM.
            stage: stage that reads the features.
        """
        self._bridge, self._stage = bridge, stage
        self._taps = stored_taps(stage, bridge.taps)
        self.identity = vlm_digest(bridge)
        self._store = TensorStore(folder / f'{self.identity[:16]}_{stage.value}')
        self._hits = self._misses = 0

    @property
    def counts(self) -> CacheCounts:
        """Hits and misses since the cache was opened."""
        return CacheCounts(hits=self._hits, misses=self._misses)

    def load_or_compute(self, images: Images, sources: Sequence[str]) -> VlFeatures:
        """Return the features of B samples; for the prior without language tokens.

        Args:
            images: images and instructions.
            sources: (B,) names of the samples.

        Raises:
            OSError: an entry cannot be written.
        """
        keys = [self.entry_key(images, index, source) for index, source in enumerate(sources)]
        entries = [self._read(key) for key in keys]
        missing = [index for index, entry in enumerate(entries) if entry is None]
        if missing:
            computed = self._bridge(select_samples(images, missing))
            for row, index in enumerate(missing):
                entry = self._make_entry(computed, row)
                self._store.write(keys[index], entry)
                entries[index] = entry
        self._hits += len(keys) - len(missing)
        self._misses += len(missing)
        return self._assemble([entry for entry in entries if entry is not None], images)

    def entry_key(self, images: Images, index: int, source: str) -> str:
        """Return the key of sample ``index``, whose name is ``source``."""
        valid = images.camera_valid[index]
        digest = hashlib.blake2b(digest_size=20)
        prompt = images.prompts[index] if self._stage is TrainingStage.VLA else ''
        digest.update('\0'.join([self.identity, source, prompt, str(images.rgb.shape[-1])]).encode())
        coarse = images.rgb[index, valid][..., ::DIGEST_STRIDE, ::DIGEST_STRIDE]
        digest.update((coarse * 255).round().to(torch.uint8).cpu().numpy().tobytes())
        digest.update(images.mask[index, valid][..., ::DIGEST_STRIDE, ::DIGEST_STRIDE].cpu().numpy().tobytes())
        return digest.hexdigest()

    def bytes_per_sample(self, *, cameras: int, side: int, text_tokens: int = 32) -> int:
        """Return an estimate of the size of one entry [bytes]."""
        tokens = cameras * self._bridge.tokens_per_camera(side)
        if self._stage is TrainingStage.VLA:
            tokens += 2 * cameras + text_tokens
        return tokens * self._bridge.width * (1 + len(self._taps)) * 2

    def _read(self, key: str) -> Entry | None:
        entry = self._store.read(key)
        if entry is not None and entry['hidden'].shape[0] != len(self._taps):
            return None
        return entry

    def _make_entry(self, features: VlFeatures, row: int) -> Entry:
        """Return the features of one sample that the expert reads."""
        is_vision, attended = features.is_vision[row], features.attention_mask[row]
        kept = is_vision if self._stage is TrainingStage.VA_PRIOR else attended | is_vision
        taps = torch.tensor(self._taps, dtype=torch.long, device=kept.device)
        return {'embeds': to_half_precision(features.inputs_embeds[row, kept]),
                'hidden': to_half_precision(features.hidden_states[taps, row][:, kept]),
                'attended': attended[kept].cpu(), 'is_vision': is_vision[kept].cpu()}

    def _assemble(self, entries: Sequence[Entry], images: Images) -> VlFeatures:
        """Return entries as one batch, left-padded like the VLM's output; taps that no block reads are zero."""
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


class TensorStore:
    """Folder of tensors by key, one file ``ab/abcdef.safetensors`` each, written atomically.

    Any number of processes may read and write the same folder: files appear by renaming, and processes that write the
    same key write the same content.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """Return the path of an entry, which need not exist."""
        return self.folder / key[:2] / f'{key}.safetensors'

    def read(self, key: str) -> dict[str, Tensor] | None:
        """Return an entry; None if it does not exist, or, with a warning, if it cannot be read."""
        path = self.path(key)
        try:
            return load_file(path)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError) as error:
            log.warning('%s is corrupt (%s); it is computed again', path, error)
            return None

    def write(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Write an entry, replacing one of the same key.

        Raises:
            OSError: the disk is full, or the folder is not writable.
        """
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic_file(path, shared=True) as temporary:
                save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        except SafetensorError as error:
            raise OSError(f'cannot write {path}: {error}') from error

    def count(self) -> int:
        """Return the number of entries."""
        return sum(1 for _ in self.folder.glob('??/*.safetensors'))


def stored_taps(stage: TrainingStage, taps: int) -> tuple[int, ...]:
    """Return the taps that some block mixes in; nothing is mixed in after the last block."""
    return tuple(range(1, 2 * (taps // 2) - 1, 2)) if stage is TrainingStage.VA_PRIOR else tuple(range(taps - 1))


def to_half_precision(tensor: Tensor) -> Tensor:
    """Convert a tensor to 16 bits on the CPU: bfloat16 unchanged, float32 to float16 where its range suffices.

    float16 keeps 11 significant bits of a float32 feature, bfloat16 only 8.
    """
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.float32 and bool((tensor.abs() < HALF_LIMIT).all()):
        return tensor.half()
    return tensor.bfloat16()


def select_samples(images: Images, rows: Sequence[int]) -> Images:
    """Return the given samples of a batch."""
    index = torch.tensor(list(rows), device=images.rgb.device)
    return Images(rgb=images.rgb[index], mask=images.mask[index], norm_xy=images.norm_xy[index],
                  prompts=tuple(images.prompts[row] for row in rows))


def vlm_digest(bridge: VlmBridge) -> str:
    """Return a digest of the VLM's name, data type, number of taps and weights."""
    digest = hashlib.blake2b(digest_size=20)
    digest.update(f'{bridge.config.name} {bridge.config.dtype} {bridge.taps}'.encode())
    for name, value in bridge.model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
