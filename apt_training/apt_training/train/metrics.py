"""What a run tells: TensorBoard, one JSON line per record, and the console.

Only the leading process tells anything; what is told, the trainer decides.
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
class Record:
    """Means since the record before."""

    iteration: int
    losses: Mapping[str, float]
    """Total and parts."""
    rate: float
    """Of the expert."""
    gradient_norm: float
    """Of the last step, before clipping."""
    samples_per_s: float
    """Of all processes."""
    data_wait: float
    """Share of the time spent waiting for data, 0..1."""
    bad_batches: int
    """Left out since the run began."""
    gpu_memory_gb: float
    gates: Mapping[str, float]
    """Mean of each layer's gate, 0..1: how much of the expert's own stream is kept."""


class Journal(Protocol):
    """Told of records."""

    def tell(self, record: Record) -> None:
        """One record."""

    def close(self) -> None:
        """No more will come."""


class SilentJournal:
    """Of the processes that do not lead."""

    def tell(self, record: Record) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class RunJournal:
    """TensorBoard and ``metrics.jsonl`` in a folder, a progress bar or, where nobody watches, lines."""

    def __init__(self, folder: Path, *, name: str, start: int, iterations: int,
                 console: Console | None = None) -> None:
        """Go on at iteration ``start``; what was told of later ones is taken back."""
        folder.mkdir(parents=True, exist_ok=True)
        self._lines = folder / LOG_FILE
        _cut(self._lines, start)
        self._board = SummaryWriter(str(folder), purge_step=start + 1 if start else None)
        self._console = console or Console(file=sys.stderr)
        self._name, self._iterations = name, iterations
        self._began, self._start = time.monotonic(), start
        self._bar = Progress(TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                             TextColumn('{task.description}'), console=self._console,
                             disable=not self._console.is_terminal)
        self._task = self._bar.add_task('', total=iterations, completed=start)
        self._bar.start()

    def tell(self, record: Record) -> None:
        """One record."""
        with self._lines.open('a') as file:
            file.write(json.dumps(asdict(record)) + '\n')
        for tag, value in scalars(record).items():
            self._board.add_scalar(tag, value, record.iteration)
        brief = (f'loss {record.losses["total"]:.3f}, {record.samples_per_s:.1f} samples/s, '
                 f'waiting for data {record.data_wait:.0%}')
        self._bar.update(self._task, completed=record.iteration, description=brief)
        if not self._console.is_terminal:
            self._console.print(f'{self._name} {record.iteration}/{self._iterations}: {brief}, '
                                f'{self._remaining(record.iteration)} left', highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Flush."""
        self._bar.stop()
        self._board.close()

    def _remaining(self, iteration: int) -> str:
        done = max(1, iteration - self._start)
        seconds = (time.monotonic() - self._began) / done * (self._iterations - iteration)
        return f'{seconds / 3600:.1f} h' if seconds > 5400 else f'{seconds / 60:.1f} min'


def scalars(record: Record) -> dict[str, float]:
    """TensorBoard's tags and values."""
    values = {f'loss/{name}': value for name, value in record.losses.items()}
    values |= {f'gate/{name}': value for name, value in record.gates.items()}
    return values | {
        'optim/rate': record.rate, 'optim/gradient_norm': record.gradient_norm,
        'speed/samples_per_s': record.samples_per_s, 'speed/data_wait': record.data_wait,
        'guard/bad_batches': float(record.bad_batches), 'memory/gpu_gb': record.gpu_memory_gb}


def read_records(folder: Path) -> list[dict[str, object]]:
    """What :class:`RunJournal` wrote, oldest first."""
    path = folder / LOG_FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def gpu_memory_gb(device: torch.device) -> float:
    """Largest amount of memory that tensors took; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == 'cuda' else 0.0


def gate_means(gates: torch.Tensor, used: Mapping[int, int]) -> dict[str, float]:
    """Of (N, D) gate weights; ``used`` maps blocks to their rows."""
    means = torch.sigmoid(gates.float()).mean(-1)
    return {f'block_{block:02d}': float(means[row]) for block, row in used.items()
            if not math.isnan(float(means[row]))}


def _cut(path: Path, start: int) -> None:
    """Remove records behind iteration ``start``."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if json.loads(line)['iteration'] <= start]
        path.write_text(''.join(line + '\n' for line in lines))
