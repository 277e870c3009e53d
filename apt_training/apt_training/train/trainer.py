"""Training loop for every stage, back-end and source of data.

The loop counts iterations, skips batches without a finite loss, logs and saves; other modules implement each of these.
All ranks run it in step: a decision that one rank takes alone (a loss that is not finite, a signal) is reduced over
all ranks first.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum

import torch

from apt_policy.core.errors import UserError
from apt_training.train.backends import Backend
from apt_training.train.batch_source import BatchSource, TimedBatchSource
from apt_training.train.checkpoint_manager import CheckpointManager, TrainingProgress
from apt_training.train.config import TrainConfig
from apt_training.train.distributed import DistributedContext
from apt_training.train.ema import ExponentialMovingAverage
from apt_training.train.metrics import MetricLogger, TrainingMetrics, gate_means, gpu_memory_gb
from apt_training.train.objective import LOSS_TERMS, micro_batch_seed
from apt_training.train.optim import learning_rate_factor

GATE = 'expert.dp_head.traj_context_attn.gate'
_NAMED_SAMPLES = 20
"""Number of samples that an error message lists."""


class TrainingResult(Enum):
    """End of a training run."""

    DONE = 'done'
    STOPPED = 'stopped'
    """Stopped by a signal and saved, ready to be resumed."""


class NonFiniteLossError(UserError, RuntimeError):
    """Too many batches in a row without a finite loss; the message names their samples."""


class NonFiniteLossGuard:
    """Counter of micro-batches whose loss is not finite on some rank; all ranks skip them together."""

    def __init__(self, max_in_a_row: int) -> None:
        self.total = 0
        self._max_in_a_row = max_in_a_row
        self._skipped: list[tuple[str, ...]] = []

    def record_finite(self) -> None:
        """Record a finite loss, which ends a row of skipped micro-batches."""
        self._skipped.clear()

    def record_non_finite(self, sources: Sequence[str]) -> None:
        """Record a micro-batch without a finite loss.

        Args:
            sources: names of the samples whose loss was not finite, of all ranks.

        Raises:
            NonFiniteLossError: the allowed number in a row is reached.
        """
        self.total += 1
        self._skipped.append(tuple(sources))
        if len(self._skipped) < self._max_in_a_row:
            return
        names = sorted({name for sources in self._skipped for name in sources})
        shown = '\n  '.join(names[:_NAMED_SAMPLES])
        more = f'\n  and {len(names) - _NAMED_SAMPLES} more' if len(names) > _NAMED_SAMPLES else ''
        raise NonFiniteLossError(f'{len(self._skipped)} batches in a row had no finite loss; samples:\n'
                                 f'  {shown}{more}\n'
                                 'Inspect them with apt-inspect. If the data is fine, training diverged: resume from '
                                 'an earlier checkpoint with a lower learning rate (--lr)')


class Trainer:
    """Training loop from a :class:`TrainingProgress` to the last iteration."""

    def __init__(self, config: TrainConfig, distributed: DistributedContext, backend: Backend, batches: BatchSource, *,
                 checkpoints: CheckpointManager, metric_logger: MetricLogger,
                 average: ExponentialMovingAverage | None, gate_rows: dict[int, int], stop: threading.Event,
                 progress: TrainingProgress) -> None:
        """Connect the parts of a run.

        Args:
            config: configuration of the stage.
            distributed: this process among the ranks of the run.
            backend: implementation of forward, backward and optimizer step.
            batches: source of micro-batches.
            checkpoints: writer of checkpoints.
            metric_logger: destination of metrics.
            average: average of the weights, or None.
            gate_rows: row of the gate weights by block.
            stop: event that asks to save and stop.
            progress: progress to continue from.
        """
        self._config, self._distributed, self._backend = config, distributed, backend
        self._batches, self._source = TimedBatchSource(batches), batches
        self._checkpoints, self._metric_logger, self._average = checkpoints, metric_logger, average
        self._gate_rows, self._stop, self._progress = gate_rows, stop, progress
        self._guard = NonFiniteLossGuard(config.max_bad_batches)
        self._guard.total = progress.bad_batches
        self._interval = _LogInterval()

    def run(self) -> TrainingResult:
        """Train to the last iteration, or until asked to stop; save in both cases.

        Raises:
            NonFiniteLossError: too many batches in a row have no finite loss.
            DataLoadingError: no data arrives.
            SaveError: a checkpoint cannot be written.
            DistributedError: another rank is lost.
        """
        while self._progress.iteration < self._config.iterations:
            stopping = self._run_iteration()
            iteration = self._progress.iteration
            last = iteration == self._config.iterations
            if last or iteration % self._config.log_every == 0:
                self._log_metrics()
            if last or stopping or iteration % self._config.checkpoint.interval == 0:
                self._save()
            if stopping and not last:
                return TrainingResult.STOPPED
        return TrainingResult.DONE

    def _run_iteration(self) -> bool:
        """Accumulate gradients, apply one optimizer step, and return whether a signal asks to stop."""
        config, accumulated = self._config, 0
        while accumulated < config.accumulation_steps:
            micro_batch = self._batches.next_batch().to(self._distributed.device)
            seed = micro_batch_seed(config.seed, self._progress.passes + self._distributed.rank)
            loss = self._backend.compute_loss(micro_batch, seed, last=accumulated == config.accumulation_steps - 1)
            finite = bool(torch.isfinite(loss.detach()).all())
            skip, stop = self._distributed.all_reduce_any([not finite, self._stop.is_set()])
            self._progress = replace(self._progress, passes=self._progress.passes + self._distributed.world_size)
            self._interval.stop = self._interval.stop or stop
            if skip:
                self._skip_batch(() if finite else micro_batch.sources)
                continue
            self._guard.record_finite()
            self._backend.backward(loss)
            self._interval.add_loss(loss.detach(), len(micro_batch.sources))
            accumulated += 1
        self._step()
        return self._interval.stop

    def _step(self) -> None:
        iteration = self._progress.iteration
        self._interval.gradient_norm = self._backend.step(self._learning_rate_factor(iteration))
        self._progress = replace(self._progress, iteration=iteration + 1, bad_batches=self._guard.total)
        if self._average is not None and self._average.is_active(iteration + 1):
            self._average.update(self._backend.gather_weights(self._checkpoints.is_saved))

    def _learning_rate_factor(self, iteration: int) -> float:
        return learning_rate_factor(iteration, self._config.optim, self._config.iterations)

    def _skip_batch(self, sources: tuple[str, ...]) -> None:
        """Skip a micro-batch whose loss is not finite on some rank."""
        names = [name for of_rank in self._distributed.all_gather(sources) for name in of_rank]
        self._guard.record_non_finite(names)

    def _save(self) -> None:
        average = self._average.weights if self._average is not None else None
        self._checkpoints.save(self._backend, self._source, self._progress, average)

    def _log_metrics(self) -> None:
        means = self._distributed.all_reduce_mean(self._interval.mean_loss().to(self._distributed.device))
        gates = self._backend.gather_weights(lambda name: name == GATE)[GATE]
        seconds = time.perf_counter() - self._interval.started
        config, iteration = self._config, self._progress.iteration
        self._metric_logger.log(iteration, TrainingMetrics(
            losses=dict(zip(LOSS_TERMS, means.tolist(), strict=True)),
            rate=config.optim.lr * self._learning_rate_factor(iteration - 1),
            gradient_norm=self._interval.gradient_norm,
            samples_per_s=self._interval.samples * self._distributed.world_size / seconds,
            data_wait=self._batches.pop_wait_s() / seconds, bad_batches=self._guard.total,
            gpu_memory_gb=gpu_memory_gb(self._distributed.device), gates=gate_means(gates, self._gate_rows)))
        self._interval = _LogInterval(stop=self._interval.stop)


class _LogInterval:
    """Sums since the previous log entry."""

    def __init__(self, *, stop: bool = False) -> None:
        self.stop = stop
        self.samples, self.gradient_norm = 0, 0.0
        self.started = time.perf_counter()
        self._micro_batches = 0
        self._loss = torch.zeros(len(LOSS_TERMS))

    def add_loss(self, loss: torch.Tensor, samples: int) -> None:
        self._loss = self._loss.to(loss.device) + loss
        self.samples += samples
        self._micro_batches += 1

    def mean_loss(self) -> torch.Tensor:
        """Return the mean (4,) over this rank's micro-batches."""
        return self._loss / max(1, self._micro_batches)
