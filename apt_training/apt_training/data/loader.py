"""Batches of a mixture, made by processes of their own.

The loader knows which draws it has handed out: its state is one number, and when a process
dies or hangs it can say which files were being read.
"""

import multiprocessing
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from apt_policy.core.errors import UserError
from apt_training.data.collate import HostBatch, gather
from apt_training.data.mixture import DrawBatches, Mixture

_BAD_SHARE, _BAD_AT_LEAST = 0.01, 10


class LoaderError(UserError, RuntimeError):
    """No batch came, or too much of the data is bad; the message names the files."""


class MixtureLoader:
    """An endless row of batches for one of several training processes."""

    def __init__(self, mixture: Mixture, batch_size: int, *, rank: int = 0, world: int = 1, workers: int = 0,
                 timeout_s: float = 0.0, pin_memory: bool = False, prefetch: int = 2) -> None:
        """Describe the row; processes start with the first batch.

        Args:
            mixture: what to draw from.
            batch_size: of each training process.
            rank: which of them this is.
            world: how many there are.
            workers: loading processes of this training process; 0: load in the trainer itself.
            timeout_s: longest wait for a batch [s], 0 for ever; needs workers.
            pin_memory: for copies to a GPU in the background.
            prefetch: batches that each worker prepares ahead.

        Raises:
            ValueError: a timeout without workers.
        """
        if timeout_s > 0 and not workers:
            raise ValueError('a timeout needs loading processes: set workers to 1 or more')
        self.mixture = mixture
        self._batches = DrawBatches(batch_size, rank=rank, world=world)
        self._workers, self._timeout_s = workers, timeout_s
        self._pin_memory, self._prefetch = pin_memory, prefetch
        self._next_draw = 0
        self._bad = 0
        self._iterator: Iterator[HostBatch] | None = None

    def __iter__(self) -> 'MixtureLoader':
        return self

    def __next__(self) -> HostBatch:
        """The next batch.

        Raises:
            LoaderError: a loading process died, none answered in time, or more than 1 % of the frames are bad.
            EpisodeError: a frame cannot be read and the mixture does not replace it.
        """
        if self._iterator is None:
            self._iterator = self._start()
        try:
            batch = next(self._iterator)
        # A process that dies while it hands a batch over leaves a broken connection.
        except (RuntimeError, OSError, EOFError) as error:
            self.close()
            raise LoaderError(f'no batch came: {error}. Being read: {self._expected()}') from error
        self._next_draw += self._batches.batch_size * self._batches.world
        self._count(batch)
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON: where the row stands behind the last batch that was handed out, alike on all processes."""
        return {'next_draw': self._next_draw, 'mixture': self.mixture.describe()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there, also with another batch size or number of processes.

        Raises:
            ValueError: the state is of another mixture; the message says what differs.
        """
        mine, theirs = self.mixture.describe(), state['mixture']
        differing = [f'{key}: was {theirs.get(key)}, is {mine[key]}' for key in mine if mine[key] != theirs.get(key)]
        if differing:
            raise ValueError('cannot go on with the draws of another mixture; ' + '; '.join(differing))
        self.close()
        self._next_draw = int(state['next_draw'])

    def close(self) -> None:
        """End the loading processes and close files."""
        iterator, self._iterator = self._iterator, None
        # DataLoader raises at every child that ends, wherever the trainer is by then, also in here: join those
        # that are dead already.
        with suppress(RuntimeError):
            multiprocessing.active_children()
        # Otherwise its processes live as long as an error whose traceback holds the iterator.
        end = getattr(iterator, '_shutdown_workers', None)
        if end is not None:
            with suppress(RuntimeError):
                end()
        self.mixture.close()

    def _start(self) -> Iterator[HostBatch]:
        batches = DrawBatches(self._batches.batch_size, rank=self._batches.rank, world=self._batches.world,
                              first_draw=self._next_draw)
        ahead: dict[str, Any] = {'prefetch_factor': self._prefetch} if self._workers else {}
        return iter(DataLoader(self.mixture, batch_sampler=batches, num_workers=self._workers, collate_fn=gather,
                               timeout=self._timeout_s, pin_memory=self._pin_memory,
                               worker_init_fn=_settle_worker, **ahead))

    def _expected(self) -> str:
        """The files of the batch that did not come."""
        return ', '.join(dict.fromkeys(self.mixture.episode_of(draw)
                                       for draw in self._batches.batch_from(self._next_draw)))

    def _count(self, batch: HostBatch) -> None:
        self._bad += len(batch.replaced)
        drawn = self._next_draw // self._batches.world
        if self._bad > _BAD_AT_LEAST and self._bad > _BAD_SHARE * drawn:
            raise LoaderError(f'{self._bad} of {drawn} frames could not be read, more than {_BAD_SHARE:.0%}; '
                              f'the last: {batch.replaced[-1] if batch.replaced else "see the warnings above"}')


def _settle_worker(_: int) -> None:
    """Processes share the cores already; threads within each only get in each other's way."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
