"""Collation of samples into the model's batch.

Loading processes hand over :class:`HostBatch`, which is small: image bytes and matrices. Floating-point images and
pixel maps are computed on the model's device. Samples with fewer cameras or arms are padded with masked ones. The
result equals, to the bit, what the planner computes from the same observation, which a test checks.

Letters: B batch, C cameras, A arms, H history states, T horizon, S image side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from apt_policy.model.batch import Images, RobotState
from apt_policy.model.observation import ABSENT, absent_view
from apt_policy.model.policy import TrainingBatch
from apt_training.data.sample import Sample


@dataclass(frozen=True, kw_only=True, eq=False)
class HostBatch:
    """Batch on the host, with the names of its samples.

    Only the large fields are tensors: each tensor crosses from a loading process over a connection of its own, while
    arrays are part of the batch's message.
    """

    rgb: Tensor
    """(B, C, S, S, 3) uint8."""
    mask: Tensor
    """(B, C, S, S) bool."""
    intrinsics: NDArray[Any]
    """(B, C, 3, 3) float64 [px]."""
    world_from_camera: NDArray[Any]
    """(B, C, 4, 4) float32, like all poses here."""
    world_from_ee: NDArray[Any]
    """(B, A, 4, 4)."""
    world_from_reference: NDArray[Any]
    """(B, A, 4, 4)."""
    history: NDArray[Any]
    """(B, H, A, 17)."""
    future: NDArray[Any]
    """(B, T, A, 17)."""
    valid_arms: NDArray[Any]
    """(B, A) bool."""
    prompts: tuple[str, ...]
    """(B,) instructions."""
    sources: tuple[str, ...]
    """(B,) dataset/file:frame."""
    cameras: tuple[tuple[str, ...], ...]
    """(B,) names of each sample's cameras, in order."""
    replaced: tuple[str, ...]
    """Errors of frames that could not be read and were replaced."""

    def to(self, device: torch.device, *, non_blocking: bool = False) -> TrainingBatch:
        """Return the model's batch on ``device``, with images as float 0..1."""
        moved = {field.name: torch.as_tensor(value).to(device, non_blocking=non_blocking) for field in fields(self)
                 if isinstance(value := getattr(self, field.name), (Tensor, np.ndarray))}
        images = Images(rgb=moved['rgb'].permute(0, 1, 4, 2, 3).float() / 255, mask=moved['mask'],
                        norm_xy=_normalised_pixels(moved['intrinsics'], self.rgb.shape[2]), prompts=self.prompts)
        robot = RobotState(**{field.name: moved[field.name] for field in fields(RobotState)})
        return TrainingBatch(images=images, robot=robot, future=moved['future'])

    def pin_memory(self) -> 'HostBatch':
        """Return a copy in page-locked memory; DataLoader calls this method."""
        return replace(self, rgb=self.rgb.pin_memory(), mask=self.mask.pin_memory())


def collate(samples: Sequence[Sample], *, cameras: int = 0, arms: int = 0) -> HostBatch:
    """Stack samples, padded to a number of cameras and arms.

    Args:
        samples: samples of the same window.
        cameras: C; 0: the most of any sample.
        arms: A; 0: the most of any sample.

    Raises:
        ValueError: the samples differ in their window, or have more cameras or arms than the batch.
    """
    windows = {(s.rgb.shape[1], len(s.history), len(s.future)) for s in samples}
    if len(windows) != 1:
        raise ValueError(f'a batch needs samples of one window, got {sorted(windows)} '
                         '(image side, history, horizon); give all datasets of a mixture the same window')
    side = windows.pop()[0]
    cameras = _capacity(cameras, [len(sample.rgb) for sample in samples], 'cameras')
    arms = _capacity(arms, [len(sample.valid_arms) for sample in samples], 'arms')
    absent, eye = absent_view(side), np.eye(4)
    return HostBatch(
        rgb=_shareable([s.rgb for s in samples], cameras, absent.rgb),
        mask=_shareable([s.mask for s in samples], cameras, absent.mask),
        intrinsics=_padded([s.intrinsics for s in samples], cameras, absent.intrinsics),
        world_from_camera=_padded([s.world_from_camera for s in samples], cameras, eye).astype(np.float32),
        world_from_ee=_padded([s.world_from_ee for s in samples], arms, eye).astype(np.float32),
        world_from_reference=_padded([s.world_from_reference for s in samples], arms, eye).astype(np.float32),
        history=_padded([s.history for s in samples], arms, ABSENT, axis=1).astype(np.float32),
        future=_padded([s.future for s in samples], arms, ABSENT, axis=1).astype(np.float32),
        valid_arms=_padded([s.valid_arms for s in samples], arms, np.False_),
        prompts=tuple(s.prompt for s in samples), sources=tuple(s.source for s in samples),
        cameras=tuple(s.cameras for s in samples), replaced=tuple(text for s in samples for text in s.replaced))


def _capacity(wanted: int, counts: Sequence[int], kind: str) -> int:
    if wanted and max(counts) > wanted:
        raise ValueError(f'a sample has {max(counts)} {kind}, the batch has room for {wanted}')
    return wanted or max(counts)


def _padded(rows: Sequence[NDArray[Any]], size: int, filling: Any, axis: int = 0) -> NDArray[Any]:
    """Return the rows stacked, each padded to ``size`` along ``axis``."""
    shape = list(rows[0].shape)
    shape[axis] = size
    batch = np.empty((len(rows), *shape), rows[0].dtype)
    _fill(batch, rows, filling, axis)
    return batch


def _shareable(rows: Sequence[NDArray[Any]], size: int, filling: Any) -> Tensor:
    """Return the rows stacked and padded along the first axis; in shared memory within a loading process."""
    shape = (len(rows), size, *rows[0].shape[1:])
    dtype = torch.from_numpy(rows[0][:0]).dtype
    if get_worker_info() is None:
        batch = torch.empty(shape, dtype=dtype)
    else:
        storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)
        batch = torch.empty(0, dtype=dtype).set_(storage).view(shape)
    _fill(batch.numpy(), rows, filling)
    return batch


def _fill(batch: NDArray[Any], rows: Sequence[NDArray[Any]], filling: Any, axis: int = 0) -> None:
    for target, row in zip(batch, rows, strict=True):
        padded, values = np.moveaxis(target, axis, 0), np.moveaxis(row, axis, 0)
        padded[:len(values)] = values
        padded[len(values):] = filling


def _normalised_pixels(intrinsics: Tensor, side: int) -> Tensor:
    """Return (B, C, 2, S, S) float32 of (B, C, 3, 3) float64; see ``model.observation.normalised_pixels``."""
    centres = torch.arange(side, dtype=torch.float64, device=intrinsics.device) + 0.5
    x = ((centres - intrinsics[..., 0, 2, None]) / intrinsics[..., 0, 0, None]).float()
    y = ((centres - intrinsics[..., 1, 2, None]) / intrinsics[..., 1, 1, None]).float()
    return torch.stack(torch.broadcast_tensors(x[..., None, :], y[..., :, None]), dim=-3)
