"""The processes of a run: who this one is, and the few things that all must agree on.

Reads what torchrun, a DeepSpeed launcher or :mod:`~apt_training.train.launch` put into the
environment. A run of one process needs no process group and opens none, unless it is asked to.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from apt_policy.core.errors import UserError

Item = TypeVar('Item')


class WorldError(UserError, RuntimeError):
    """The processes of a run lost each other; the message says what was seen."""


@dataclass(frozen=True, kw_only=True)
class World:
    """One process among ``size``."""

    rank: int
    size: int
    local_rank: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks to the console."""
        return self.rank == 0

    def any_of(self, flags: Sequence[bool]) -> tuple[bool, ...]:
        """Each flag: whether any process raised it. All processes must ask together."""
        if self.size == 1:
            return tuple(flags)
        counts = torch.tensor([float(flag) for flag in flags], device=self.device)
        with _others_needed():
            dist.all_reduce(counts, op=dist.ReduceOp.MAX)
        return tuple(bool(count) for count in counts.tolist())

    def mean_of(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over processes, on the CPU."""
        total = values.detach().clone()
        if self.size > 1:
            with _others_needed():
                dist.all_reduce(total)
        return (total / self.size).cpu()

    def gather(self, item: Item) -> list[Item]:
        """What every process gave, by rank."""
        if self.size == 1:
            return [item]
        items: list[Item] = [item] * self.size
        with _others_needed():
            dist.all_gather_object(items, item)
        return items

    def meet(self) -> None:
        """Wait until all are here."""
        self.any_of([False])


@contextmanager
def join_world(*, group: bool = False, timeout_s: float = 1800.0) -> Iterator[World]:
    """Join the processes that the environment names, and leave them at the end.

    Args:
        group: open a process group for one process, too (DeepSpeed wants one).
        timeout_s: how long a process waits for the others in a common operation [s].
    """
    environment = os.environ
    rank, size = int(environment.get('RANK', '0')), int(environment.get('WORLD_SIZE', '1'))
    local_rank = int(environment.get('LOCAL_RANK', '0'))
    on_gpu = torch.cuda.is_available() and environment.get('APT_TRAIN_DEVICE') != 'cpu'
    device = torch.device('cuda', local_rank) if on_gpu else torch.device('cpu')
    if on_gpu:
        torch.cuda.set_device(device)
    world = World(rank=rank, size=size, local_rank=local_rank, device=device)
    if size == 1 and not group:
        yield world
        return
    if size == 1 and 'MASTER_ADDR' not in environment:
        dist.init_process_group('nccl' if on_gpu else 'gloo', store=dist.HashStore(), rank=0, world_size=1)
    else:
        dist.init_process_group('nccl' if on_gpu else 'gloo', timeout=timedelta(seconds=timeout_s))
    try:
        yield world
    finally:
        dist.destroy_process_group()


@contextmanager
def _others_needed() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise WorldError('another process of this run ended or hangs; see its own message. '
                         f'What this one saw: {str(error).splitlines()[0]}') from error
