"""Interface of a training back-end, and its implementation with torch for one process or DDP.

The implementation with DeepSpeed is :mod:`~apt_training.train.deepspeed_backend`. A back-end computes losses,
gradients and optimizer steps; the trainer decides what is trained and when it is saved.
"""

import pickle
import struct
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from apt_policy.core.errors import UserError
from apt_training.train.config import TrainConfig, TrainingPrecision
from apt_training.train.distributed import DistributedContext
from apt_training.train.objective import MicroBatch, Objective
from apt_training.train.optim import make_optimizer, parameter_groups, set_learning_rate

OPTIMIZER_FILE = 'optimizer.pt'
TORCH_LOAD_ERRORS = (RuntimeError, ValueError, KeyError, OSError, EOFError, pickle.UnpicklingError, struct.error)
"""Errors that ``torch.load`` raises for a damaged file."""
NameFilter = Callable[[str], bool]


class TrainingStateError(UserError, ValueError):
    """Saved training state that cannot be restored; the message tells why."""


class Backend(Protocol):
    """Computation of losses, gradients and steps. Every method is collective: all ranks call it together."""

    def compute_loss(self, micro_batch: MicroBatch, seed: int, *, last: bool) -> Tensor:
        """Compute the loss of one micro-batch.

        Args:
            micro_batch: input on the device.
            seed: seed of noise and perturbation.
            last: True for the last micro-batch of the step, after which gradients are synchronized.

        Returns:
            (4,) :data:`~apt_training.train.objective.LOSS_TERMS`.
        """

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradient of the last loss that :meth:`compute_loss` returned."""

    def step(self, learning_rate_factor: float) -> float:
        """Clip and apply the accumulated gradient, then reset it.

        Args:
            learning_rate_factor: share of the full learning rate, 0..1.

        Returns:
            Norm of the gradient before clipping; if it is not finite, no step was applied.
        """

    def gather_weights(self, wanted: NameFilter) -> dict[str, Tensor]:
        """Return the complete tensors of the policy whose names ``wanted`` accepts, by name."""

    def save(self, folder: Path) -> None:
        """Write the optimizer state into an existing folder."""

    def load(self, folder: Path) -> None:
        """Load what :meth:`save` wrote.

        Raises:
            TrainingStateError: the state is corrupt or belongs to other weights.
        """


class TorchBackend:
    """Back-end for one process, or for several with DDP."""

    def __init__(self, objective: Objective, config: TrainConfig, distributed: DistributedContext) -> None:
        self._policy = objective.policy
        self._optimizer = make_optimizer(parameter_groups(objective, config.optim))
        self._optim, self._accumulation_steps = config.optim, config.accumulation_steps
        self._distributed = distributed
        self._module: nn.Module = objective if distributed.world_size == 1 else _wrap_in_ddp(objective)

    def compute_loss(self, micro_batch: MicroBatch, seed: int, *, last: bool) -> Tensor:
        """Compute the loss of one micro-batch; see :class:`Backend`."""
        module = self._module
        synchronize = last or not isinstance(module, DistributedDataParallel)
        with nullcontext() if synchronize else module.no_sync():  # type: ignore[operator]
            return module(micro_batch, seed)

    def backward(self, loss: Tensor) -> None:
        """Accumulate a gradient; see :class:`Backend`."""
        (loss[0] / self._accumulation_steps).backward()

    def step(self, learning_rate_factor: float) -> float:
        """Apply the accumulated gradient; see :class:`Backend`."""
        set_learning_rate(self._optimizer, self._optim, learning_rate_factor)
        parameters = [p for group in self._optimizer.param_groups for p in group['params']]
        norm = float(nn.utils.clip_grad_norm_(parameters, self._optim.clip))
        if torch.isfinite(torch.tensor(norm)):
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    def gather_weights(self, wanted: NameFilter) -> dict[str, Tensor]:
        """Return weights by name; see :class:`Backend`."""
        return {name: value.detach() for name, value in self._policy.state_dict().items() if wanted(name)}

    def save(self, folder: Path) -> None:
        """Write the optimizer state on rank 0; see :class:`Backend`."""
        if self._distributed.is_main_process:
            torch.save(self._optimizer.state_dict(), folder / OPTIMIZER_FILE)

    def load(self, folder: Path) -> None:
        """Load the optimizer state; see :class:`Backend`."""
        path = folder / OPTIMIZER_FILE
        try:
            state = torch.load(path, map_location='cpu', weights_only=True)
            self._optimizer.load_state_dict(state)
        except TORCH_LOAD_ERRORS as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise TrainingStateError(f'cannot load the optimizer state in {path}: {reason}') from error


def _wrap_in_ddp(objective: Objective) -> DistributedDataParallel:
    with warnings.catch_warnings():
        # The argument's new name does not exist in torch 2.11.
        warnings.filterwarnings('ignore', message='`broadcast_buffers`', category=FutureWarning)
        # Weights after the last tap have no gradient; in the prior every second projection has none either.
        return DistributedDataParallel(objective, find_unused_parameters=True, broadcast_buffers=False)


def autocast_dtype(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """Return the data type of autocast around float32 weights; None for float32."""
    return torch.bfloat16 if uses_bfloat16(config, device) else None


def uses_bfloat16(config: TrainConfig, device: torch.device) -> bool:
    """Return whether the expert computes in bfloat16; AUTO does so on a GPU only, because most CPUs emulate it."""
    if config.precision is TrainingPrecision.AUTO:
        return device.type == 'cuda'
    return config.precision is TrainingPrecision.BFLOAT16


def weights_with_prefix(state: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    """Return the entries of ``state`` whose names start with ``prefix``, without the prefix."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
