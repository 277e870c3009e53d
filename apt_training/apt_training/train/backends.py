"""How a step is computed on one process or many; the port that the trainer speaks, and torch's DDP behind it.

DeepSpeed's side of the port is ``deepspeed_backend``. Neither knows what is trained, when, or where
it is saved.
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
from apt_training.train.config import Precision, TrainConfig
from apt_training.train.objective import Objective, Work
from apt_training.train.optim import make_optimizer, parameter_groups, set_rate
from apt_training.train.world import World

OPTIMIZER_FILE = 'optimizer.pt'
UNREADABLE = (RuntimeError, ValueError, KeyError, OSError, EOFError, pickle.UnpicklingError, struct.error)
"""What torch raises at a damaged file."""
Wanted = Callable[[str], bool]


class StateError(UserError, ValueError):
    """Training state that cannot be taken up; the message says why."""


class Backend(Protocol):
    """Passes and steps. All processes call each method together."""

    def loss(self, work: Work, seed: int, *, last: bool) -> Tensor:
        """(4,) of :data:`~apt_training.train.objective.PARTS`; ``last`` of the step's passes."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of what :meth:`loss` gave last."""

    def step(self, rate_factor: float) -> float:
        """Apply the clipped gradient and forget it.

        Returns:
            The norm that it had; if that is not finite, nothing was applied.
        """

    def weights(self, wanted: Wanted) -> dict[str, Tensor]:
        """Whole weights by their names in the policy, those that ``wanted`` accepts."""

    def save(self, folder: Path) -> None:
        """Write optimizer state into an existing folder."""

    def load(self, folder: Path) -> None:
        """The inverse of :meth:`save`.

        Raises:
            StateError: it is corrupt, or made for other weights.
        """


class TorchBackend:
    """Implements :class:`Backend`: one process, or DDP."""

    def __init__(self, objective: Objective, config: TrainConfig, world: World) -> None:
        self._policy = objective.policy
        self._optimizer = make_optimizer(parameter_groups(objective, config.optim))
        self._optim, self._accumulation = config.optim, config.accumulation
        self._world = world
        self._module: nn.Module = objective if world.size == 1 else _distributed(objective)

    def loss(self, work: Work, seed: int, *, last: bool) -> Tensor:
        """See :class:`Backend`."""
        module = self._module
        alone = last or not isinstance(module, DistributedDataParallel)
        with nullcontext() if alone else module.no_sync():  # type: ignore[operator]
            return module(work, seed)

    def backward(self, loss: Tensor) -> None:
        """See :class:`Backend`."""
        (loss[0] / self._accumulation).backward()

    def step(self, rate_factor: float) -> float:
        """See :class:`Backend`."""
        set_rate(self._optimizer, self._optim, rate_factor)
        parameters = [p for group in self._optimizer.param_groups for p in group['params']]
        norm = float(nn.utils.clip_grad_norm_(parameters, self._optim.clip))
        if torch.isfinite(torch.tensor(norm)):
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    def weights(self, wanted: Wanted) -> dict[str, Tensor]:
        """See :class:`Backend`."""
        return {name: value.detach() for name, value in self._policy.state_dict().items() if wanted(name)}

    def save(self, folder: Path) -> None:
        """See :class:`Backend`."""
        if self._world.leads:
            torch.save(self._optimizer.state_dict(), folder / OPTIMIZER_FILE)

    def load(self, folder: Path) -> None:
        """See :class:`Backend`."""
        path = folder / OPTIMIZER_FILE
        try:
            state = torch.load(path, map_location='cpu', weights_only=True)
            self._optimizer.load_state_dict(state)
        except UNREADABLE as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise StateError(f'the optimizer state in {path} cannot be taken up: {reason}') from error


def _distributed(objective: Objective) -> DistributedDataParallel:
    with warnings.catch_warnings():
        # Its new name is unknown to torch 2.11.
        warnings.filterwarnings('ignore', message='`broadcast_buffers`', category=FutureWarning)
        # Behind the last tap no weight has a gradient, in the prior neither has every second projection.
        return DistributedDataParallel(objective, find_unused_parameters=True, broadcast_buffers=False)


def autocast_dtype(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """What torch computes in around float32 weights; None: float32."""
    return torch.bfloat16 if computes_in_bfloat16(config, device) else None


def computes_in_bfloat16(config: TrainConfig, device: torch.device) -> bool:
    """AUTO is bfloat16 on a GPU only: most CPUs emulate it."""
    if config.precision is Precision.AUTO:
        return device.type == 'cuda'
    return config.precision is Precision.BFLOAT16


def weights_of(state: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    """The entries of ``state`` under ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
