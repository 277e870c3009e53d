"""Loader of a mixture's batches, with worker processes.

The loader counts the draws that it has returned, so its state is one number, and when a worker dies or hangs the error
names the files that were being read.
"""

import multiprocessing
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from apt_policy.core.errors import UserError
from apt_training.data.collate import HostBatch, collate
from apt_training.data.mixture import DrawBatchSampler, Mixture

_MAX_BAD_SHARE = 0.01
"""Share of unreadable frames above which loading fails."""
_TOLERATED_BAD_FRAMES = 10
"""Number of unreadable frames that is tolerated whatever their share."""


class DataLoadingError(UserError, RuntimeError):
    """No batch arrived, too many frames are damaged, or saved state belongs to other data."""


class MixtureLoader:
    """Endless batches of a mixture for one rank."""

    def __init__(self, mixture: Mixture, batch_size: int, *, rank: int = 0, world_size: int = 1, workers: int = 0,
                 timeout_s: float = 0.0, pin_memory: bool = False, prefetch: int = 2) -> None:
        """Configure the loader; worker processes start with the first batch.

        Args:
            mixture: datasets to draw from.
            batch_size: samples per rank and batch.
            rank: rank of this process.
            world_size: number of ranks.
            workers: worker processes of this rank; 0: load in this process.
            timeout_s: longest wait for a batch [s], 0: no limit; needs workers.
            pin_memory: use page-locked memory for asynchronous copies to a GPU.
            prefetch: batches that each worker prepares ahead.

        Raises:
            ValueError: there is a timeout without workers.
        """
        if timeout_s > 0 and not workers:
            raise ValueError('timeout_s needs worker processes; set workers to 1 or more')
        self.mixture = mixture
        self._batches = DrawBatchSampler(batch_size, rank=rank, world_size=world_size)
        self._workers, self._timeout_s = workers, timeout_s
        self._pin_memory, self._prefetch = pin_memory, prefetch
        self._next_draw = 0
        self._bad = 0
        self._iterator: Iterator[HostBatch] | None = None

    def __iter__(self) -> 'MixtureLoader':
        return self

    def __next__(self) -> HostBatch:
        """Return the next batch.

        Raises:
            DataLoadingError: a worker died, no batch arrived in time, or more than 1 % of the frames are damaged.
            EpisodeError: a frame cannot be read and the mixture does not replace it.
        """
        if self._iterator is None:
            self._iterator = self._start()
        try:
            batch = next(self._iterator)
        # A worker that dies while it sends a batch leaves a broken connection.
        except (RuntimeError, OSError, EOFError) as error:
            self.close()
            raise DataLoadingError(f'no batch arrived: {error}. Files being read: {self._files_being_read()}'
                                   ) from error
        self._next_draw += self._batches.batch_size * self._batches.world_size
        self._count_bad_frames(batch)
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last returned batch as plain JSON, the same on every rank."""
        return {'next_draw': self._next_draw, 'mixture': self.mixture.describe()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved position, which may come from another batch size or number of ranks.

        Raises:
            ValueError: the state belongs to another mixture; the message names the differences.
        """
        now, saved = self.mixture.describe(), state['mixture']
        differing = [f'{key}: was {saved.get(key)}, is {now[key]}' for key in now if now[key] != saved.get(key)]
        if differing:
            raise ValueError('cannot resume with the draws of another mixture; ' + '; '.join(differing))
        self.close()
        self._next_draw = int(state['next_draw'])

    def close(self) -> None:
        """Stop the worker processes and close all files."""
        iterator, self._iterator = self._iterator, None
        # DataLoader's signal handler raises wherever the main thread is when a child ends; join those that ended.
        with suppress(RuntimeError):
            multiprocessing.active_children()
        # Without this call, workers live as long as an error whose traceback refers to the iterator.
        end = getattr(iterator, '_shutdown_workers', None)
        if end is not None:
            with suppress(RuntimeError):
                end()
        self.mixture.close()

    def _start(self) -> Iterator[HostBatch]:
        batches = DrawBatchSampler(self._batches.batch_size, rank=self._batches.rank,
                                   world_size=self._batches.world_size, first_draw=self._next_draw)
        ahead: dict[str, Any] = {'prefetch_factor': self._prefetch} if self._workers else {}
        return iter(DataLoader(self.mixture, batch_sampler=batches, num_workers=self._workers, collate_fn=collate,
                               timeout=self._timeout_s, pin_memory=self._pin_memory,
                               worker_init_fn=_limit_worker_threads, **ahead))

    def _files_being_read(self) -> str:
        """Return the files of the batch that did not arrive."""
        return ', '.join(dict.fromkeys(self.mixture.describe_draw(draw)
                                       for draw in self._batches.batch_from(self._next_draw)))

    def _count_bad_frames(self, batch: HostBatch) -> None:
        self._bad += len(batch.replaced)
        drawn = self._next_draw // self._batches.world_size
        if self._bad > _TOLERATED_BAD_FRAMES and self._bad > _MAX_BAD_SHARE * drawn:
            raise DataLoadingError(f'{self._bad} of {drawn} frames could not be read, more than {_MAX_BAD_SHARE:.0%}; '
                                   f'the last: {batch.replaced[-1] if batch.replaced else "see the warnings above"}')


def _limit_worker_threads(_: int) -> None:
    """Use one thread per worker: the workers share the cores already."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
