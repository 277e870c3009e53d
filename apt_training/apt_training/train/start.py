"""Where a run's weights come from: nowhere, its own last checkpoint, a prior, or somebody's checkpoint.

Builds the policy and says what became of every weight. Optimizer and data are not its business.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from apt_policy.core.contract import mismatches
from apt_policy.model.checkpoint import Checkpoint, read_checkpoint
from apt_policy.model.config import TINY_VLM, ExpertConfig, PolicyConfig, TrainingStage, VlmConfig, VlmMode
from apt_policy.model.expert import Expert
from apt_policy.model.policy import Policy
from apt_policy.model.restore import build_policy, load_vlm_weights, load_weights
from apt_policy.model.stages import TransferReport, transfer_prior
from apt_policy.model.vlm.bridge import VlmBridge, build_bridge
from apt_training.train.config import ConfigError, TrainConfig
from apt_training.train.randomness import seed_everything
from apt_training.train.saving import RunFolder

log = logging.getLogger(__name__)

LEDGER_FILE = 'transfer.json'
GATE = 'dp_head.traj_context_attn.gate'


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a run begins with, if it has no checkpoint of its own to go on from."""

    checkpoint: Path | None = None
    """Weights of the same stage, or of a prior if the run trains a VLA; None: a fresh expert."""
    resume: bool = False
    """Go on from the run's own last checkpoint, where there is one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Started:
    """A policy ready to be trained."""

    policy: Policy
    iteration: int | None
    """Of its own checkpoint that it goes on from; None: a new run."""
    ledger: TransferReport | None
    """What came from a prior."""


def start_policy(config: TrainConfig, start: Start, run: RunFolder, *, contract: Mapping[str, Any],
                 device: torch.device) -> Started:
    """Build the policy of a run.

    Raises:
        ConfigError: the run exists and is not to be gone on with, or the recipe does not fit the checkpoint.
        CheckpointError, TransferError, VlmError: weights that cannot be used.
        SaveError: the run's folder was damaged.
    """
    latest = run.latest()
    if latest is not None and not start.resume:
        flag = '--va-conti' if config.stage is TrainingStage.VA_PRIOR else '--vla-conti'
        raise ConfigError(f'{run.folder} holds a run at iteration {latest}; go on with {flag}, or give another '
                          'name with --va-name or --vla-name')
    seed_everything(config.seed)
    if latest is not None:
        policy = _own(read_checkpoint(run.checkpoint(latest)), config, contract, device)
        ledger = read_ledger(run.folder)
    elif start.checkpoint is not None:
        policy, ledger = _from(read_checkpoint(start.checkpoint), config, contract, device)
    else:
        policy, ledger = fresh_policy(config, device), None
    if config.freeze_prior:
        _freeze(policy, ledger)
    return Started(policy=policy, iteration=latest, ledger=ledger)


def fresh_policy(config: TrainConfig, device: torch.device) -> Policy:
    """An expert that has learned nothing, over the VLM that ``config`` names."""
    bridge = build_bridge(config.vlm, device)
    expert = expert_config(config, bridge)
    return Policy(PolicyConfig(expert=expert, vlm=bridge.config), bridge, Expert(expert).to(device))


def expert_config(config: TrainConfig, bridge: VlmBridge) -> ExpertConfig:
    """The expert's sizes over a VLM."""
    width, heads = config.expert.value
    return ExpertConfig(stage=config.stage, width=width, heads=heads, vlm_width=bridge.width, taps=bridge.taps,
                        prediction=config.prediction, translation_noise=config.translation_noise)


def write_ledger(folder: Path, ledger: TransferReport) -> None:
    """Every weight's origin, as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({'copied': dict(ledger.copied), 'new': list(ledger.new)}, indent=2)
    (folder / LEDGER_FILE).write_text(text + '\n')


def read_ledger(folder: Path) -> TransferReport | None:
    """The inverse of :func:`write_ledger`; None where there was no transfer."""
    path = folder / LEDGER_FILE
    if not path.exists():
        return None
    fields = json.loads(path.read_text())
    return TransferReport(copied=fields['copied'], new=tuple(fields['new']))


def describe_ledger(ledger: TransferReport) -> str:
    """In a line."""
    blocks = sorted({key.split('.')[3] for key in ledger.new if '.layers.' in key}, key=int)
    others = [key for key in ledger.new if '.layers.' not in key]
    new = f'new: blocks {", ".join(blocks)}' + (f' and {len(others)} other weights' if others else '')
    return f'transfer: {len(ledger.copied)} weights copied from the prior, {len(ledger.new)} {new}'


def _own(checkpoint: Checkpoint, config: TrainConfig, contract: Mapping[str, Any], device: torch.device) -> Policy:
    checkpoint.require_stage(config.stage)
    checkpoint.require_contract(contract)
    _require_size(checkpoint, config)
    trained = checkpoint.vlm or VlmConfig()
    if trained.mode is not config.vlm.mode:
        raise ConfigError(f'{checkpoint.source} was trained with vlm.mode {trained.mode.value}, this run has '
                          f'{config.vlm.mode.value}; give --vlm-mode {trained.mode.value}')
    return build_policy(checkpoint, device=device, vlm=config.vlm)


def _from(checkpoint: Checkpoint, config: TrainConfig, contract: Mapping[str, Any],
          device: torch.device) -> tuple[Policy, TransferReport | None]:
    """Somebody's weights; another robot is no obstacle, for the weights do not depend on it."""
    _require_size(checkpoint, config)
    _require_prediction(checkpoint, config)
    if checkpoint.expert.stage is TrainingStage.VLA:
        checkpoint.require_stage(config.stage)
    for line in mismatches(checkpoint.contract or contract, contract):
        log.warning('%s, this run: %s', checkpoint.source, line)
    policy = fresh_policy(config, device)
    _load_vlm(policy.vlm, checkpoint)
    if checkpoint.expert.stage is config.stage:
        load_weights(policy.expert, checkpoint.weights, source=checkpoint.source)
        return policy, None
    return policy, transfer_prior(checkpoint.weights, policy.expert, config.transfer)


def _load_vlm(bridge: VlmBridge, checkpoint: Checkpoint) -> None:
    if checkpoint.vlm_weights is None:
        return
    adapted = any('lora_' in key for key in checkpoint.vlm_weights)
    needed = VlmMode.LORA if adapted else VlmMode.FULL
    if bridge.config.mode is not needed and bridge.config.name != TINY_VLM:
        raise ConfigError(f'the VLM of {checkpoint.source} was tuned; its weights would be lost with vlm.mode '
                          f'{bridge.config.mode.value}: give --vlm-mode {needed.value}')
    if adapted == (bridge.config.mode is VlmMode.LORA):
        load_vlm_weights(bridge, checkpoint.vlm_weights, source=checkpoint.source)


def _require_size(checkpoint: Checkpoint, config: TrainConfig) -> None:
    got = (checkpoint.expert.width, checkpoint.expert.heads)
    if got != config.expert.value:
        raise ConfigError(f'{checkpoint.source} holds an expert of width {got[0]} with {got[1]} heads; recipe '
                          f'{config.recipe} has {config.expert.value[0]} with {config.expert.value[1]}: '
                          'choose a --config of that size')


def _require_prediction(checkpoint: Checkpoint, config: TrainConfig) -> None:
    trained, wanted = (f'to predict {one.prediction.name.lower()} under noise of {one.translation_noise:g} m on '
                       'translations' for one in (checkpoint.expert, config))
    if trained != wanted:
        raise ConfigError(f'{checkpoint.source} was trained {trained}, recipe {config.recipe} trains {wanted}; '
                          'choose a --config with the same')


def _freeze(policy: Policy, ledger: TransferReport | None) -> None:
    if ledger is None:
        raise ConfigError('freeze_prior is set and there is no prior; give --va-name or --pretrained-ckpt of one')
    for name, parameter in policy.expert.named_parameters():
        # The gate is one weight for all blocks, old and new.
        if name in ledger.copied and name != GATE:
            parameter.requires_grad_(False)


def without_mode(vlm: VlmConfig) -> VlmConfig:
    """``vlm`` frozen."""
    return replace(vlm, mode=VlmMode.FROZEN, gradient_checkpointing=False)
