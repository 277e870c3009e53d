"""Samples to the model's batch.

Loading processes hand over what is small, bytes and matrices (:class:`HostBatch`); floats and
pixel maps are made of it where the model is. Samples with fewer cameras or arms are padded
with masked ones. The result equals, to the bit, what the live planner makes of the same
observation: a test holds them together.

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
    """A batch on its way to the model, and where it came from.

    Only what is large is a tensor: each tensor crosses from a loading process by a connection of
    its own, arrays go along with the batch.
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
    sources: tuple[str, ...]
    """(B,) dataset/file:frame."""
    cameras: tuple[tuple[str, ...], ...]
    """(B,) names of each sample's cameras, in order."""
    replaced: tuple[str, ...]
    """Errors of frames that could not be read and were replaced."""

    def to(self, device: torch.device, *, non_blocking: bool = False) -> TrainingBatch:
        """The model's batch, there."""
        moved = {field.name: torch.as_tensor(value).to(device, non_blocking=non_blocking) for field in fields(self)
                 if isinstance(value := getattr(self, field.name), (Tensor, np.ndarray))}
        images = Images(rgb=moved['rgb'].permute(0, 1, 4, 2, 3).float() / 255, mask=moved['mask'],
                        norm_xy=_normalised_pixels(moved['intrinsics'], self.rgb.shape[2]), prompts=self.prompts)
        robot = RobotState(**{field.name: moved[field.name] for field in fields(RobotState)})
        return TrainingBatch(images=images, robot=robot, future=moved['future'])

    def pin_memory(self) -> 'HostBatch':
        """The same in memory that a GPU copies from by itself; DataLoader calls it."""
        return replace(self, rgb=self.rgb.pin_memory(), mask=self.mask.pin_memory())


def collate(samples: Sequence[Sample]) -> TrainingBatch:
    """The model's batch on the CPU; images float 0..1.

    Raises:
        ValueError: samples of different windows.
    """
    return gather(samples).to(torch.device('cpu'))


def gather(samples: Sequence[Sample], *, cameras: int = 0, arms: int = 0) -> HostBatch:
    """Samples side by side, padded to the most cameras and arms among them, or to these numbers.

    Raises:
        ValueError: samples of different windows, or more cameras or arms than asked for.
    """
    windows = {(s.obs_rgbs.shape[-1], len(s.history_ee_states), len(s.gt_future_ee_states)) for s in samples}
    if len(windows) != 1:
        raise ValueError(f'a batch needs samples of one window, got {sorted(windows)} '
                         '(image side, history, horizon): give all datasets of a mixture the same')
    side = windows.pop()[0]
    cameras = _room(cameras, [len(sample.K) for sample in samples], 'cameras')
    arms = _room(arms, [len(sample.valid_ee_mask) for sample in samples], 'arms')
    absent, eye = absent_view(side), np.eye(4)
    return HostBatch(
        rgb=_shareable([s.obs_rgbs[-1].transpose(0, 2, 3, 1) for s in samples], cameras, absent.rgb),
        mask=_shareable([s.obs_masks[-1] for s in samples], cameras, absent.mask),
        intrinsics=_padded([s.K for s in samples], cameras, absent.intrinsics),
        world_from_camera=_padded([s.obs_extrinsics[-1] for s in samples], cameras, eye).astype(np.float32),
        world_from_ee=_padded([s.current_ee_pose for s in samples], arms, eye).astype(np.float32),
        world_from_reference=_padded([s.action_ref_pose for s in samples], arms, eye).astype(np.float32),
        history=_padded([s.history_ee_states for s in samples], arms, ABSENT, axis=1).astype(np.float32),
        future=_padded([s.gt_future_ee_states for s in samples], arms, ABSENT, axis=1).astype(np.float32),
        valid_arms=_padded([s.valid_ee_mask for s in samples], arms, np.False_),
        prompts=tuple(s.prompt_text for s in samples), sources=tuple(s.source for s in samples),
        cameras=tuple(s.cameras for s in samples), replaced=tuple(text for s in samples for text in s.replaced))


def _room(wanted: int, there: Sequence[int], what: str) -> int:
    if wanted and max(there) > wanted:
        raise ValueError(f'a sample has {max(there)} {what}, the batch has room for {wanted}')
    return wanted or max(there)


def _padded(rows: Sequence[NDArray[Any]], size: int, filling: Any, axis: int = 0) -> NDArray[Any]:
    """Stacked, each filled up to ``size`` along ``axis``."""
    shape = list(rows[0].shape)
    shape[axis] = size
    batch = np.empty((len(rows), *shape), rows[0].dtype)
    _fill(batch, rows, filling, axis)
    return batch


def _shareable(rows: Sequence[NDArray[Any]], size: int, filling: Any) -> Tensor:
    """:func:`_padded` along the first axis; in a loading process it lies where the trainer reads it without a copy."""
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
        along, there = np.moveaxis(target, axis, 0), np.moveaxis(row, axis, 0)
        along[:len(there)] = there
        along[len(there):] = filling


def _normalised_pixels(intrinsics: Tensor, side: int) -> Tensor:
    """(B, C, 2, S, S) float32 of (B, C, 3, 3) float64; the twin of ``model.observation.normalised_pixels``."""
    at = torch.arange(side, dtype=torch.float64, device=intrinsics.device) + 0.5
    x = ((at - intrinsics[..., 0, 2, None]) / intrinsics[..., 0, 0, None]).float()
    y = ((at - intrinsics[..., 1, 2, None]) / intrinsics[..., 1, 1, None]).float()
    return torch.stack(torch.broadcast_tensors(x[..., None, :], y[..., :, None]), dim=-3)
