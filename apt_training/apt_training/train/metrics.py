"""Metrics of a run in TensorBoard, in a JSON-lines file and on the console.

The main process logs; the trainer decides what.
"""

import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

LOG_FILE = 'metrics.jsonl'


@dataclass(frozen=True, kw_only=True)
class TrainingMetrics:
    """Means since the previous log entry; the field names are keys of ``metrics.jsonl``."""

    losses: Mapping[str, float]
    """Total loss and its terms, by name."""
    rate: float
    """Learning rate of the expert."""
    gradient_norm: float
    """Norm of the last step's gradient before clipping."""
    samples_per_s: float
    """Throughput of all ranks [samples/s]."""
    data_wait: float
    """Share of the time spent waiting for data, 0..1."""
    bad_batches: int
    """Number of micro-batches skipped since the run began."""
    gpu_memory_gb: float
    """Peak memory of tensors on the GPU [GB]."""
    gates: Mapping[str, float]
    """Mean fusion gate of each block, 0..1; 1 keeps the expert's own stream."""


class MetricLogger(Protocol):
    """Destination of training metrics."""

    def log(self, iteration: int, metrics: TrainingMetrics) -> None:
        """Log the metrics of one iteration."""

    def close(self) -> None:
        """Flush and close."""


class NullMetricLogger:
    """Metric logger of the ranks other than 0, which discards everything."""

    def log(self, iteration: int, metrics: TrainingMetrics) -> None:
        """Discard the metrics."""

    def close(self) -> None:
        """Do nothing."""


class RunMetricLogger:
    """Metric logger to TensorBoard, ``metrics.jsonl`` and a progress bar, or plain lines without a terminal."""

    def __init__(self, folder: Path, *, name: str, start: int, iterations: int,
                 console: Console | None = None) -> None:
        """Open the logs, and remove entries after iteration ``start``.

        Args:
            folder: folder of the logs.
            name: name of the run on the console.
            start: iteration that the run resumes from; 0 for a new run.
            iterations: iterations of the whole run.
            console: output of the progress bar; None: standard error.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._lines = folder / LOG_FILE
        _truncate(self._lines, start)
        self._board = SummaryWriter(str(folder), purge_step=start + 1 if start else None)
        self._console = console or Console(file=sys.stderr)
        self._name, self._iterations = name, iterations
        self._started, self._start = time.monotonic(), start
        self._bar = Progress(TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                             TextColumn('{task.description}'), console=self._console,
                             disable=not self._console.is_terminal)
        self._task = self._bar.add_task('', total=iterations, completed=start)
        self._bar.start()

    def log(self, iteration: int, metrics: TrainingMetrics) -> None:
        """Write the metrics of one iteration to all destinations."""
        with self._lines.open('a') as file:
            file.write(json.dumps({'iteration': iteration, **asdict(metrics)}) + '\n')
        for tag, value in tensorboard_scalars(metrics).items():
            self._board.add_scalar(tag, value, iteration)
        summary = (f'loss {metrics.losses["total"]:.3f}, {metrics.samples_per_s:.1f} samples/s, '
                   f'waiting for data {metrics.data_wait:.0%}')
        self._bar.update(self._task, completed=iteration, description=summary)
        if not self._console.is_terminal:
            self._console.print(f'{self._name} {iteration}/{self._iterations}: {summary}, '
                                f'{self._remaining(iteration)} left', highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Stop the progress bar and flush TensorBoard."""
        self._bar.stop()
        self._board.close()

    def _remaining(self, iteration: int) -> str:
        done = max(1, iteration - self._start)
        seconds = (time.monotonic() - self._started) / done * (self._iterations - iteration)
        return f'{seconds / 3600:.1f} h' if seconds > 5400 else f'{seconds / 60:.1f} min'


def tensorboard_scalars(metrics: TrainingMetrics) -> dict[str, float]:
    """Return the values by their TensorBoard tags."""
    values = {f'loss/{name}': value for name, value in metrics.losses.items()}
    values |= {f'gate/{name}': value for name, value in metrics.gates.items()}
    return values | {
        'optim/rate': metrics.rate, 'optim/gradient_norm': metrics.gradient_norm,
        'speed/samples_per_s': metrics.samples_per_s, 'speed/data_wait': metrics.data_wait,
        'guard/bad_batches': float(metrics.bad_batches), 'memory/gpu_gb': metrics.gpu_memory_gb}


def read_metrics(folder: Path) -> list[dict[str, object]]:
    """Read the entries that :class:`RunMetricLogger` wrote, oldest first."""
    path = folder / LOG_FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def gpu_memory_gb(device: torch.device) -> float:
    """Return the peak memory of tensors on the device [GB]; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == 'cuda' else 0.0


def gate_means(gates: torch.Tensor, used: Mapping[int, int]) -> dict[str, float]:
    """Return the mean gate of each block.

    Args:
        gates: (N, D) gate weights before the sigmoid.
        used: row of the gate weights by block.
    """
    means = torch.sigmoid(gates.float()).mean(-1)
    return {f'block_{block:02d}': float(means[row]) for block, row in used.items()
            if not math.isnan(float(means[row]))}


def _truncate(path: Path, start: int) -> None:
    """Remove the entries after iteration ``start``."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if json.loads(line)['iteration'] <= start]
        path.write_text(''.join(line + '\n' for line in lines))
