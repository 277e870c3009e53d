"""Ranks of a distributed run: which one this process is, and the collective operations that training needs.

Reads the environment variables of torchrun, of a DeepSpeed launcher or of :mod:`~apt_training.train.launch`. A run of
one process needs no process group and creates none, unless it is asked to.
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


class DistributedError(UserError, RuntimeError):
    """Lost contact with another rank of the run."""


@dataclass(frozen=True, kw_only=True)
class DistributedContext:
    """Rank of this process, and collective operations over all ranks."""

    rank: int
    world_size: int
    """Number of processes of the run."""
    local_rank: int
    """Rank among the processes of this machine."""
    device: torch.device
    """Device that this process computes on."""

    @property
    def is_main_process(self) -> bool:
        """True on rank 0, which writes files and logs."""
        return self.rank == 0

    def all_reduce_any(self, flags: Sequence[bool]) -> tuple[bool, ...]:
        """Return, for each flag, whether it is set on any rank. Collective: every rank must call it."""
        if self.world_size == 1:
            return tuple(flags)
        counts = torch.tensor([float(flag) for flag in flags], device=self.device)
        with _collective():
            dist.all_reduce(counts, op=dist.ReduceOp.MAX)
        return tuple(bool(count) for count in counts.tolist())

    def all_reduce_mean(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean of ``values`` over all ranks, on the CPU. Collective: every rank must call it."""
        total = values.detach().clone()
        if self.world_size > 1:
            with _collective():
                dist.all_reduce(total)
        return (total / self.world_size).cpu()

    def all_gather(self, item: Item) -> list[Item]:
        """Return the items of all ranks, in the order of ranks. Collective: every rank must call it."""
        if self.world_size == 1:
            return [item]
        items: list[Item] = [item] * self.world_size
        with _collective():
            dist.all_gather_object(items, item)
        return items

    def barrier(self) -> None:
        """Wait until every rank has called this method."""
        self.all_reduce_any([False])


@contextmanager
def init_distributed(*, use_gpu: bool = True, always_create_group: bool = False,
                     timeout_s: float = 1800.0) -> Iterator[DistributedContext]:
    """Join the process group that the environment describes, and destroy it at the end.

    Args:
        use_gpu: compute on the GPU of the local rank where there is one; False: compute on the CPU.
        always_create_group: create a process group for a single process as well, which DeepSpeed requires.
        timeout_s: time that a collective operation may wait for other ranks [s].
    """
    environment = os.environ
    rank, world_size = int(environment.get('RANK', '0')), int(environment.get('WORLD_SIZE', '1'))
    local_rank = int(environment.get('LOCAL_RANK', '0'))
    on_gpu = use_gpu and torch.cuda.is_available()
    device = torch.device('cuda', local_rank) if on_gpu else torch.device('cpu')
    if on_gpu:
        torch.cuda.set_device(device)
    context = DistributedContext(rank=rank, world_size=world_size, local_rank=local_rank, device=device)
    if world_size == 1 and not always_create_group:
        yield context
        return
    if world_size == 1 and 'MASTER_ADDR' not in environment:
        dist.init_process_group('nccl' if on_gpu else 'gloo', store=dist.HashStore(), rank=0, world_size=1)
    else:
        dist.init_process_group('nccl' if on_gpu else 'gloo', timeout=timedelta(seconds=timeout_s))
    try:
        yield context
    finally:
        dist.destroy_process_group()


@contextmanager
def _collective() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise DistributedError("Lost contact with another rank; see that rank's log. "
                               f'Local error: {str(error).splitlines()[0]}') from error
