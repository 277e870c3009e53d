"""``apt-train --preflight [CKPT]``: everything that could end a launch, looked at before it.

Reads any checkpoint, ours or published, accounts for every key of it, compares contracts and VLM,
opens all data, asks the disk, and computes one pass. Writes nothing and trains nothing.
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
from apt_policy.model.config import Stage
from apt_policy.model.policy import Policy
from apt_training.data.collate import gather
from apt_training.train.backends import autocast_dtype
from apt_training.train.config import TrainConfig
from apt_training.train.flags import TrainArguments
from apt_training.train.objective import Objective
from apt_training.train.saving import RunFolder, require_space
from apt_training.train.snapshot import Snapshots
from apt_training.train.sources import frames_of, open_data, work_of
from apt_training.train.start import Start, Started, describe_ledger, start_policy
from apt_training.train.world import World

EXPECTED = (ValueError, RuntimeError, OSError, KeyError)
DRY_SAMPLES = 2


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Of one check."""

    name: str
    detail: str
    problem: bool


class Findings:
    """Runs checks one by one; a check that fails hides none of the others."""

    def __init__(self) -> None:
        self.all: list[Finding] = []

    def check(self, name: str, look: Callable[[], Any], describe: Callable[[Any], str]) -> Any:
        """What ``look`` returned; None if it failed."""
        try:
            value = look()
            self.all.append(Finding(name=name, detail=describe(value), problem=False))
            return value
        except EXPECTED as error:
            self.all.append(Finding(name=name, detail=str(error) or type(error).__name__, problem=True))
            return None

    @property
    def problems(self) -> list[Finding]:
        """Those that would end a launch."""
        return [finding for finding in self.all if finding.problem]


def preflight(request: TrainArguments, console: Console | None = None) -> int:
    """Check a launch and say what was found.

    Returns:
        0 if it can start, else 1.
    """
    console = console or Console(stderr=True)
    findings = look(request)
    for finding in findings.all:
        mark = '[red]no[/]' if finding.problem else '[green]ok[/]'
        console.print(f'{mark}  {escape(finding.name)}: {escape(finding.detail)}', highlight=False, soft_wrap=True)
    count = len(findings.problems)
    console.print(f'{count} problem{"s" * (count != 1)}: this launch would fail' if count else 'ready to launch')
    return 1 if count else 0


def look(request: TrainArguments) -> Findings:
    """Every check of a launch."""
    findings = Findings()
    contract = findings.check('contract', lambda: load_contract(request.contract),
                              lambda found: f'{request.contract}: {", ".join(found.arms)}; {", ".join(found.cameras)}')
    if contract is None:
        return findings
    checkpoint = Path(request.preflight) if request.preflight else request.pretrained
    for place, config in enumerate(request.stages):
        # Of two stages the second starts from the first, which is not there yet.
        _look_at_stage(findings, request, config, contract, checkpoint if place == 0 else None)
    return findings


def _look_at_stage(findings: Findings, request: TrainArguments, config: TrainConfig, contract: RobotContract,
                   checkpoint: Path | None) -> None:
    stage = config.stage.value
    if checkpoint is not None:
        findings.check(f'{stage}: checkpoint', lambda: _stage_of(checkpoint, config.stage, request.load_from_va),
                       lambda found: f'{checkpoint} holds a {found}')
        findings.check(f'{stage}: contract of the checkpoint',
                       lambda: _differences(checkpoint, contract.policy_facts()), _describe_differences)
    with tempfile.TemporaryDirectory() as nowhere:
        started = findings.check(
            f'{stage}: weights',
            lambda: start_policy(replace(config, freeze_prior=False), Start(checkpoint=checkpoint),
                                 RunFolder(Path(nowhere)), contract=contract.policy_facts(), device=_device(request)),
            lambda found: _describe_start(found, checkpoint))
    mixture = findings.check(f'{stage}: data', lambda: open_data(request, config, contract),
                             lambda found: f'{sum(len(part.dataset) for part in found.parts)} episodes, '
                                           f'{frames_of(found)} frames')
    if started is None:
        return
    run = RunFolder(request.ckpt_dir / request.names[config.stage])
    snapshots = Snapshots(run, config, World(rank=0, size=1, local_rank=0, device=_device(request)),
                          policy=started.policy, contract=contract.policy_facts())
    findings.check(f'{stage}: disk', lambda: require_space(run.folder, snapshots.bytes_needed * (config.keep.last + 1)),
                   lambda _: f'{run.folder} has room for {config.keep.last + 1} checkpoints of '
                             f'{snapshots.bytes_needed / 1e6:.0f} MB')
    if mixture is not None:
        findings.check(f'{stage}: one pass', lambda: _dry_loss(started.policy, config, mixture, _device(request)),
                       lambda loss: f'loss {loss:.3f}')


def _stage_of(path: Path, stage: Stage, load_from_va: bool | None) -> str:
    checkpoint = read_checkpoint(path)
    if stage is Stage.VLA and load_from_va is None:
        return checkpoint.expert.stage.value
    wanted = Stage.VA_PRIOR if stage is Stage.VA_PRIOR or load_from_va else Stage.VLA
    checkpoint.require_stage(wanted)
    return checkpoint.expert.stage.value


def _differences(path: Path, facts: Mapping[str, Any]) -> list[str]:
    checkpoint = read_checkpoint(path)
    return ['a published file, which names none'] if checkpoint.contract is None else mismatches(
        checkpoint.contract, facts)


def _describe_differences(lines: list[str]) -> str:
    # Weights fit any robot, so this is for a person to judge.
    return '; '.join(lines) if lines else 'the same as this run\'s'


def _describe_start(started: Started, checkpoint: Path | None) -> str:
    config = started.policy.config
    text = f'expert of width {config.expert.width} over {config.vlm.name}, {config.expert.taps} taps of width ' \
           f'{config.expert.vlm_width}, VLM {config.vlm.mode.value}'
    if started.ledger is not None:
        return f'{text}; {describe_ledger(started.ledger)}'
    if checkpoint is None:
        return f'{text}; fresh'
    return f'{text}; all {len(started.policy.expert.state_dict())} weights from {checkpoint}'


def _dry_loss(policy: Policy, config: TrainConfig, mixture: Any, device: torch.device) -> float:
    work = work_of(gather([mixture[draw] for draw in range(min(DRY_SAMPLES, config.batch))]), device)
    objective = Objective(policy.train(), perturbation=config.perturbation, draws=config.draws,
                          autocast=autocast_dtype(config, device))
    loss = objective(work, seed=config.seed)
    loss[0].backward()
    if not torch.isfinite(loss).all():
        raise CheckpointError(f'the loss of {", ".join(work.sources)} is not finite: {loss.tolist()}')
    return loss[0].item()


def _device(request: TrainArguments) -> torch.device:
    return torch.device('cuda' if torch.cuda.is_available() and request.gpus > 0 else 'cpu')
