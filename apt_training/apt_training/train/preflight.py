"""``apt-train --preflight [CKPT]``: checks before a launch everything that could end it.

Reads the checkpoint, own or published, and accounts for every key; compares contracts and VLM; opens all data; checks
the free disk space; and computes one forward and backward pass. Writes no file and trains nothing.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape

from apt_policy.core.contract import RobotContract, load_contract, mismatches
from apt_policy.model.checkpoint import CheckpointError, read_checkpoint
from apt_policy.model.config import TrainingStage
from apt_policy.model.policy import Policy
from apt_training.data.collate import collate
from apt_training.train.backends import autocast_dtype
from apt_training.train.checkpoint_manager import CheckpointManager
from apt_training.train.config import TrainConfig
from apt_training.train.distributed import DistributedContext
from apt_training.train.episode_batches import count_frames, open_training_data, to_micro_batch
from apt_training.train.flags import TrainArguments
from apt_training.train.initialize import InitFrom, InitializedPolicy, initialize_policy
from apt_training.train.objective import Objective
from apt_training.train.run_folder import RunFolder, check_free_space
from apt_training.train.transfer_report import describe_transfer

CHECK_ERRORS = (ValueError, RuntimeError, OSError, KeyError)
"""Errors that a failed check raises."""
MAX_SAMPLES = 2
"""Number of samples of the forward and backward pass."""


@dataclass(frozen=True, kw_only=True)
class PreflightCheck:
    """Result of one check."""

    name: str
    detail: str
    problem: bool
    """True if the check failed."""


class PreflightReport:
    """Results of checks that run one by one; a failed check does not stop the others."""

    def __init__(self) -> None:
        self.checks: list[PreflightCheck] = []

    def run_check(self, name: str, check: Callable[[], Any], describe: Callable[[Any], str]) -> Any:
        """Run a check and record its result.

        Args:
            name: name of the check.
            check: function that raises one of :data:`CHECK_ERRORS` if it fails.
            describe: function that summarizes what ``check`` returned.

        Returns:
            The value that ``check`` returned; None if it failed.
        """
        try:
            value = check()
            self.checks.append(PreflightCheck(name=name, detail=describe(value), problem=False))
            return value
        except CHECK_ERRORS as error:
            self.checks.append(PreflightCheck(name=name, detail=str(error) or type(error).__name__, problem=True))
            return None

    @property
    def problems(self) -> list[PreflightCheck]:
        """Failed checks."""
        return [check for check in self.checks if check.problem]


def preflight(arguments: TrainArguments, console: Console | None = None) -> int:
    """Check a launch and print the results.

    Returns:
        Exit status: 0 if the run can start, else 1.
    """
    console = console or Console(stderr=True)
    report = check_launch(arguments)
    for check in report.checks:
        mark = '[red]no[/]' if check.problem else '[green]ok[/]'
        console.print(f'{mark}  {escape(check.name)}: {escape(check.detail)}', highlight=False, soft_wrap=True)
    count = len(report.problems)
    console.print(f'{count} problem{"s" * (count != 1)}: this launch would fail' if count else 'ready to launch')
    return 1 if count else 0


def check_launch(arguments: TrainArguments) -> PreflightReport:
    """Run every check of a launch."""
    report = PreflightReport()
    contract = report.run_check(
        'contract', lambda: load_contract(arguments.contract),
        lambda found: f'{arguments.contract}: {", ".join(found.arms)}; {", ".join(found.cameras)}')
    if contract is None:
        return report
    checkpoint = Path(arguments.preflight) if arguments.preflight else arguments.pretrained
    for place, config in enumerate(arguments.stages):
        # The second of two stages starts from the first, which does not exist yet.
        _check_stage(report, arguments, config, contract, checkpoint if place == 0 else None)
    return report


def _check_stage(report: PreflightReport, arguments: TrainArguments, config: TrainConfig, contract: RobotContract,
                 checkpoint: Path | None) -> None:
    stage, device = config.stage.value, _device(arguments)
    if checkpoint is not None:
        report.run_check(f'{stage}: checkpoint', lambda: _stage_of(checkpoint, config.stage, arguments.load_from_va),
                         lambda found: f'{checkpoint} holds a {found}')
        report.run_check(f'{stage}: contract of the checkpoint',
                         lambda: _contract_differences(checkpoint, contract.policy_facts()), _describe_differences)
    with tempfile.TemporaryDirectory() as empty:
        initialized = report.run_check(
            f'{stage}: weights',
            lambda: initialize_policy(replace(config, freeze_prior=False), InitFrom(checkpoint=checkpoint),
                                      RunFolder(Path(empty)), contract=contract.policy_facts(), device=device),
            lambda found: _describe_weights(found, checkpoint))
    mixture = report.run_check(
        f'{stage}: data', lambda: open_training_data(arguments, config, contract),
        lambda found: f'{sum(len(component.dataset) for component in found.components)} episodes, '
                      f'{count_frames(found)} frames')
    if initialized is None:
        return
    run, count = RunFolder(arguments.ckpt_dir / arguments.names[config.stage]), config.checkpoint.keep_latest + 1
    checkpoints = CheckpointManager(
        run, config, DistributedContext(rank=0, world_size=1, local_rank=0, device=device),
        policy=initialized.policy, contract=contract.policy_facts())
    report.run_check(f'{stage}: disk', lambda: check_free_space(run.folder, checkpoints.bytes_needed * count),
                     lambda _: f'{run.folder} has room for {count} checkpoints of '
                               f'{checkpoints.bytes_needed / 1e6:.0f} MB')
    if mixture is not None:
        report.run_check(f'{stage}: one pass', lambda: _compute_loss(initialized.policy, config, mixture, device),
                         lambda loss: f'loss {loss:.3f}')


def _stage_of(path: Path, stage: TrainingStage, load_from_va: bool | None) -> str:
    checkpoint = read_checkpoint(path)
    if stage is TrainingStage.VLA and load_from_va is None:
        return checkpoint.expert.stage.value
    wanted = TrainingStage.VA_PRIOR if stage is TrainingStage.VA_PRIOR or load_from_va else TrainingStage.VLA
    checkpoint.require_stage(wanted)
    return checkpoint.expert.stage.value


def _contract_differences(path: Path, facts: Mapping[str, Any]) -> list[str]:
    checkpoint = read_checkpoint(path)
    if checkpoint.contract is None:
        return ['not recorded in a published file']
    return mismatches(checkpoint.contract, facts)


def _describe_differences(lines: list[str]) -> str:
    # Weights transfer across robots, so a difference is reported and not refused.
    return '; '.join(lines) if lines else 'the same as the contract of this run'


def _describe_weights(initialized: InitializedPolicy, checkpoint: Path | None) -> str:
    config = initialized.policy.config
    text = f'expert of width {config.expert.width} over {config.vlm.name}, {config.expert.taps} taps of width ' \
           f'{config.expert.vlm_width}, VLM {config.vlm.mode.value}'
    if initialized.transfer is not None:
        return f'{text}; {describe_transfer(initialized.transfer)}'
    if checkpoint is None:
        return f'{text}; randomly initialized'
    return f'{text}; all {len(initialized.policy.expert.state_dict())} weights from {checkpoint}'


def _compute_loss(policy: Policy, config: TrainConfig, mixture: Any, device: torch.device) -> float:
    samples = [mixture[draw] for draw in range(min(MAX_SAMPLES, config.batch_size))]
    micro_batch = to_micro_batch(collate(samples), device)
    objective = Objective(policy.train(), perturbation=config.perturbation, noise_samples=config.noise_samples,
                          autocast=autocast_dtype(config, device))
    loss = objective(micro_batch, seed=config.seed)
    loss[0].backward()
    if not torch.isfinite(loss).all():
        raise CheckpointError(f'the loss of {", ".join(micro_batch.sources)} is not finite: {loss.tolist()}')
    return loss[0].item()


def _device(arguments: TrainArguments) -> torch.device:
    return torch.device('cuda' if torch.cuda.is_available() and arguments.gpus > 0 else 'cpu')
