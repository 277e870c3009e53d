"""The training loop, one for every stage, back-end and source of data.

It counts, guards, logs and saves at the right moments; each of those is somebody else's work. All
processes run it in step: whatever one of them decides alone (a loss that is not finite, a signal) is
first agreed upon.
"""

import threading
import time
from dataclasses import replace
from enum import Enum

import torch

from apt_training.train.backends import Backend
from apt_training.train.config import TrainConfig
from apt_training.train.ema import WeightAverage
from apt_training.train.feed import Feed, WatchedFeed
from apt_training.train.guards import BadBatches
from apt_training.train.metrics import Journal, Record, gate_means, gpu_memory_gb
from apt_training.train.objective import PARTS, pass_seed
from apt_training.train.optim import rate_factor
from apt_training.train.snapshot import Progress, Snapshots
from apt_training.train.world import World

GATE = 'expert.dp_head.traj_context_attn.gate'


class Outcome(Enum):
    """How a run ended."""

    DONE = 'done'
    STOPPED = 'stopped'
    """By a signal, saved, to be gone on with."""


class Trainer:
    """Runs from a :class:`Progress` to the last iteration."""

    def __init__(self, config: TrainConfig, world: World, backend: Backend, feed: Feed, *,
                 snapshots: Snapshots, journal: Journal, average: WeightAverage | None,
                 gate_rows: dict[int, int], stop: threading.Event, progress: Progress) -> None:
        self._config, self._world, self._backend = config, world, backend
        self._feed, self._source = WatchedFeed(feed), feed
        self._snapshots, self._journal, self._average = snapshots, journal, average
        self._gate_rows, self._stop, self._progress = gate_rows, stop, progress
        self._bad = BadBatches(config.max_bad_batches)
        self._bad.total = progress.bad_batches
        self._since = _Since()

    def run(self) -> Outcome:
        """Train to the end, or until asked to stop; saved either way.

        Raises:
            BadDataError: too many batches without a finite loss.
            FeedError: data stopped coming.
            SaveError: a checkpoint could not be written.
            WorldError: another process is gone.
        """
        while self._progress.iteration < self._config.iterations:
            stopping = self._iterate()
            iteration = self._progress.iteration
            last = iteration == self._config.iterations
            if last or iteration % self._config.log_every == 0:
                self._tell()
            if last or stopping or iteration % self._config.keep.every == 0:
                self._save()
            if stopping and not last:
                return Outcome.STOPPED
        return Outcome.DONE

    def _iterate(self) -> bool:
        """One step, to its end; whether a signal asks to stop behind it."""
        config, good = self._config, 0
        while good < config.accumulation:
            work = self._feed.next().to(self._world.device)
            index = self._progress.passes + self._world.rank
            loss = self._backend.loss(work, pass_seed(config.seed, index), last=good == config.accumulation - 1)
            finite = bool(torch.isfinite(loss.detach()).all())
            bad, stop = self._world.any_of([not finite, self._stop.is_set()])
            self._progress = replace(self._progress, passes=self._progress.passes + self._world.size)
            self._since.stop = self._since.stop or stop
            if bad:
                self._leave_out(() if finite else work.sources)
                continue
            self._bad.good()
            self._backend.backward(loss)
            self._since.add(loss.detach(), len(work.sources))
            good += 1
        self._step()
        return self._since.stop

    def _step(self) -> None:
        iteration = self._progress.iteration
        self._since.norm = self._backend.step(self._rate_factor(iteration))
        self._progress = replace(self._progress, iteration=iteration + 1, bad_batches=self._bad.total)
        if self._average is not None and self._average.begins(iteration + 1):
            self._average.add(self._backend.weights(self._snapshots.wanted))

    def _rate_factor(self, iteration: int) -> float:
        return rate_factor(iteration, self._config.optim, self._config.iterations)

    def _leave_out(self, sources: tuple[str, ...]) -> None:
        """Another batch takes the place of one whose loss was not finite on some process."""
        names = [name for part in self._world.gather(sources) for name in part]
        self._bad.bad(names)

    def _save(self) -> None:
        average = self._average.weights if self._average is not None else None
        self._snapshots.save(self._backend, self._source, self._progress, average)

    def _tell(self) -> None:
        means = self._world.mean_of(self._since.mean().to(self._world.device))
        gates = self._backend.weights(lambda name: name == GATE)[GATE]
        seconds = time.perf_counter() - self._since.began
        config, iteration = self._config, self._progress.iteration
        self._journal.tell(Record(
            iteration=iteration, losses=dict(zip(PARTS, means.tolist(), strict=True)),
            rate=config.optim.lr * self._rate_factor(iteration - 1),
            gradient_norm=self._since.norm, samples_per_s=self._since.samples * self._world.size / seconds,
            data_wait=self._feed.take_wait() / seconds, bad_batches=self._bad.total,
            gpu_memory_gb=gpu_memory_gb(self._world.device), gates=gate_means(gates, self._gate_rows)))
        self._since = _Since(stop=self._since.stop)


class _Since:
    """Sums since the last record."""

    def __init__(self, *, stop: bool = False) -> None:
        self.stop = stop
        self.samples, self.passes, self.norm = 0, 0, 0.0
        self.began = time.perf_counter()
        self._sum = torch.zeros(len(PARTS))

    def add(self, loss: torch.Tensor, samples: int) -> None:
        self._sum = self._sum.to(loss.device) + loss
        self.samples += samples
        self.passes += 1

    def mean(self) -> torch.Tensor:
        """(4,) of this process."""
        return self._sum / max(1, self.passes)
