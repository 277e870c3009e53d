"""One stage of a run: builds policy, back-end, data and logging, and runs the trainer.

The batch source is a callable, so episodes, cached features and synthetic data of tests share one code path.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apt_policy.model.checkpoint import read_checkpoint
from apt_policy.model.policy import Policy
from apt_training.train.backends import Backend, TorchBackend, autocast_dtype
from apt_training.train.batch_source import BatchSource
from apt_training.train.checkpoint_manager import EXPERT, VLM, CheckpointManager, TrainingProgress
from apt_training.train.config import BackendKind, TrainConfig
from apt_training.train.distributed import DistributedContext
from apt_training.train.ema import ExponentialMovingAverage
from apt_training.train.initialize import InitFrom, InitializedPolicy, initialize_policy
from apt_training.train.metrics import MetricLogger, NullMetricLogger, RunMetricLogger
from apt_training.train.objective import Objective
from apt_training.train.provenance import write_recipe
from apt_training.train.run_folder import RunFolder
from apt_training.train.trainer import Trainer, TrainingResult
from apt_training.train.transfer_report import TRANSFER_REPORT_FILE, describe_transfer, write_transfer_report

log = logging.getLogger(__name__)

BatchSourceFactory = Callable[[TrainConfig, DistributedContext, Policy], BatchSource]


@dataclass(frozen=True, kw_only=True)
class StageRun:
    """Training of one stage, as the command line requests it."""

    config: TrainConfig
    run: RunFolder
    """Folder of checkpoints."""
    logs: Path
    """Folder of metrics."""
    init_from: InitFrom
    """Source of the initial weights."""
    contract: Mapping[str, Any]
    """Facts of the robot contract, ``RobotContract.policy_facts()``."""


def is_finished(run: RunFolder, config: TrainConfig) -> bool:
    """Return whether the run has reached its last iteration."""
    latest = run.latest_iteration()
    return latest is not None and latest >= config.iterations


def make_backend(objective: Objective, config: TrainConfig, distributed: DistributedContext) -> Backend:
    """Create the back-end that ``config`` names."""
    if config.backend is BackendKind.DDP:
        return TorchBackend(objective, config, distributed)
    # DeepSpeed takes seconds to import and looks for compilers, so only its own runs import it.
    from apt_training.train.deepspeed_backend import DeepSpeedBackend
    return DeepSpeedBackend(objective, config, distributed)


def train_stage(job: StageRun, distributed: DistributedContext, open_batches: BatchSourceFactory,
                stop: threading.Event) -> TrainingResult:
    """Train one stage from its beginning, or from its latest checkpoint.

    Args:
        job: the stage.
        distributed: this process among the ranks of the run.
        open_batches: function that opens the batch source once the policy exists.
        stop: event that asks the trainer to save and stop.

    Raises:
        ValueError, RuntimeError: see :class:`Trainer` and :func:`initialize_policy`.
    """
    config = job.config
    initialized = initialize_policy(config, job.init_from, job.run, contract=job.contract, device=distributed.device)
    # Rank 0 must not write a checkpoint while another rank still reads which one is the latest.
    distributed.barrier()
    if distributed.is_main_process:
        _write_provenance(job, initialized)
    policy, iteration = initialized.policy, initialized.iteration
    checkpoints = CheckpointManager(job.run, config, distributed, policy=policy, contract=job.contract)
    average = _load_average(job, iteration)
    stack = policy.expert.dp_head.traj_context_attn
    gate_rows = {block: stack.tap_after(block) for block in range(len(stack.blocks) - 1)}
    autocast = None if config.backend is BackendKind.DEEPSPEED else autocast_dtype(config, distributed.device)
    objective = Objective(policy.train(), perturbation=config.perturbation, noise_samples=config.noise_samples,
                          autocast=autocast)
    batches = open_batches(config, distributed, policy)
    try:
        backend = make_backend(objective, config, distributed)
        progress = TrainingProgress() if iteration is None else checkpoints.restore(backend, batches, iteration)
        metric_logger = _open_metric_logger(job, distributed, progress)
        try:
            return Trainer(config, distributed, backend, batches, checkpoints=checkpoints,
                           metric_logger=metric_logger, average=average, gate_rows=gate_rows, stop=stop,
                           progress=progress).run()
        finally:
            metric_logger.close()
    finally:
        batches.close()


def _write_provenance(job: StageRun, initialized: InitializedPolicy) -> None:
    """Write the recipe, and for a new run the origin of weights that came from a prior."""
    if initialized.transfer is not None and initialized.iteration is None:
        log.info('%s; every weight in %s', describe_transfer(initialized.transfer),
                 job.run.folder / TRANSFER_REPORT_FILE)
        write_transfer_report(job.run.folder, initialized.transfer)
    write_recipe(job.run.folder, job.config)


def _load_average(job: StageRun, iteration: int | None) -> ExponentialMovingAverage | None:
    if job.config.ema is None:
        return None
    saved = None if iteration is None else job.run.ema_folder(iteration)
    if saved is None or not saved.is_dir():
        return ExponentialMovingAverage(job.config.ema)
    checkpoint = read_checkpoint(saved)
    weights = {EXPERT + name: value for name, value in checkpoint.weights.items()}
    tuned = {VLM + name: value for name, value in (checkpoint.vlm_weights or {}).items()}
    return ExponentialMovingAverage(job.config.ema, {**weights, **tuned})


def _open_metric_logger(job: StageRun, distributed: DistributedContext, progress: TrainingProgress) -> MetricLogger:
    if not distributed.is_main_process:
        return NullMetricLogger()
    return RunMetricLogger(job.logs, name=job.run.folder.name, start=progress.iteration,
                           iterations=job.config.iterations)
