"""One stage of one run put together: policy, back-end, data, journal, trainer.

Where batches come from is a callable, so the same road serves episodes, cached features and tests.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apt_policy.model.checkpoint import read_checkpoint
from apt_policy.model.policy import Policy
from apt_training.train.backends import autocast_dtype
from apt_training.train.choose_backend import make_backend
from apt_training.train.config import BackendKind, TrainConfig
from apt_training.train.ema import WeightAverage
from apt_training.train.feed import Feed
from apt_training.train.metrics import Journal, RunJournal, SilentJournal
from apt_training.train.objective import Objective
from apt_training.train.provenance import write_recipe
from apt_training.train.saving import RunFolder
from apt_training.train.snapshot import EXPERT, VLM, Progress, Snapshots
from apt_training.train.start import Start, describe_ledger, start_policy, write_ledger
from apt_training.train.trainer import Outcome, Trainer
from apt_training.train.world import World

log = logging.getLogger(__name__)

OpenFeed = Callable[[TrainConfig, World, Policy], Feed]


@dataclass(frozen=True, kw_only=True)
class StageRun:
    """What is to be done."""

    config: TrainConfig
    run: RunFolder
    logs: Path
    start: Start
    contract: Mapping[str, Any]
    """``RobotContract.policy_facts()``."""


def finished(run: RunFolder, config: TrainConfig) -> bool:
    """Whether nothing is left to do."""
    latest = run.latest()
    return latest is not None and latest >= config.iterations


def train_stage(job: StageRun, world: World, open_feed: OpenFeed, stop: threading.Event) -> Outcome:
    """Train one stage from its start, or from where it stopped.

    Raises:
        ValueError, RuntimeError: those of the parts, see :class:`Trainer` and :func:`start_policy`.
    """
    config = job.config
    started = start_policy(config, job.start, job.run, contract=job.contract, device=world.device)
    policy, iteration = started.policy, started.iteration
    # A checkpoint in the middle of another's look for the latest one would send the two apart.
    world.meet()
    if started.ledger is not None and iteration is None and world.leads:
        log.info('%s; every weight in %s', describe_ledger(started.ledger), job.run.folder / 'transfer.json')
        write_ledger(job.run.folder, started.ledger)
    if world.leads:
        write_recipe(job.run.folder, config)
    snapshots = Snapshots(job.run, config, world, policy=policy, contract=job.contract)
    average = _average(job, iteration)
    stack = policy.expert.dp_head.traj_context_attn
    gate_rows = {block: stack.tap_after(block) for block in range(len(stack.blocks) - 1)}
    autocast = None if config.backend is BackendKind.DEEPSPEED else autocast_dtype(config, world.device)
    objective = Objective(policy.train(), perturbation=config.perturbation, draws=config.draws, autocast=autocast)
    feed = open_feed(config, world, policy)
    try:
        backend = make_backend(objective, config, world)
        progress = Progress() if iteration is None else snapshots.resume(backend, feed, iteration)
        journal = _journal(job, world, progress)
        try:
            return Trainer(config, world, backend, feed, snapshots=snapshots, journal=journal, average=average,
                           gate_rows=gate_rows, stop=stop, progress=progress).run()
        finally:
            journal.close()
    finally:
        feed.close()


def _average(job: StageRun, iteration: int | None) -> WeightAverage | None:
    if job.config.ema is None:
        return None
    saved = None if iteration is None else job.run.average(iteration)
    if saved is None or not saved.is_dir():
        return WeightAverage(job.config.ema)
    checkpoint = read_checkpoint(saved)
    weights = {EXPERT + name: value for name, value in checkpoint.weights.items()}
    tuned = {VLM + name: value for name, value in (checkpoint.vlm_weights or {}).items()}
    return WeightAverage(job.config.ema, {**weights, **tuned})


def _journal(job: StageRun, world: World, progress: Progress) -> Journal:
    if not world.leads:
        return SilentJournal()
    return RunJournal(job.logs, name=job.run.folder.name, start=progress.iteration, iterations=job.config.iterations)
