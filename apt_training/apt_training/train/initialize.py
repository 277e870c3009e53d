"""Initial policy of a training run: its own latest checkpoint, another checkpoint, a prior, or random weights.

The optimizer and the position in the data are restored by :mod:`~apt_training.train.checkpoint_manager`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
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
from apt_training.train.run_folder import RunFolder
from apt_training.train.transfer_report import read_transfer_report

log = logging.getLogger(__name__)

GATE = 'dp_head.traj_context_attn.gate'
"""Fusion gate of the expert, one weight shared by old and new blocks."""


@dataclass(frozen=True, kw_only=True)
class InitFrom:
    """Source of a run's initial weights."""

    checkpoint: Path | None = None
    """Checkpoint of the same stage, or of a prior if the run trains a VLA; None: random weights."""
    resume: bool = False
    """True to resume from the run's own latest checkpoint where there is one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class InitializedPolicy:
    """Policy that is ready to be trained."""

    policy: Policy
    iteration: int | None
    """Iteration of the run's own checkpoint that it resumes from; None for a new run."""
    transfer: TransferReport | None
    """Origin of each weight if the policy was initialized from a prior."""


def initialize_policy(config: TrainConfig, init_from: InitFrom, run: RunFolder, *, contract: Mapping[str, Any],
                      device: torch.device) -> InitializedPolicy:
    """Build the policy of a run and load its initial weights.

    Args:
        config: configuration of the stage.
        init_from: source of the weights.
        run: folder of the run.
        contract: facts of the robot contract, ``RobotContract.policy_facts()``.
        device: device of the policy.

    Raises:
        ConfigError: the run exists and is not to be resumed, or the recipe does not fit the checkpoint.
        CheckpointError, TransferError, VlmError: the weights cannot be used.
        SaveError: the folder of the run is damaged.
    """
    iteration = _resume_iteration(config, init_from, run)
    seed_everything(config.seed)
    if iteration is not None:
        policy = _resume(read_checkpoint(run.checkpoint_folder(iteration)), config, contract, device)
        transfer = read_transfer_report(run.folder)
    elif init_from.checkpoint is not None:
        policy, transfer = _initialize_from(read_checkpoint(init_from.checkpoint), config, contract, device)
    else:
        policy, transfer = build_new_policy(config, device), None
    if config.freeze_prior:
        _freeze_prior(policy, transfer)
    return InitializedPolicy(policy=policy, iteration=iteration, transfer=transfer)


def build_new_policy(config: TrainConfig, device: torch.device) -> Policy:
    """Build a policy with a randomly initialized expert over the VLM that ``config`` names."""
    bridge = build_bridge(config.vlm, device)
    width, heads = config.expert.value
    expert = ExpertConfig(stage=config.stage, width=width, heads=heads, vlm_width=bridge.width, taps=bridge.taps,
                          prediction=config.prediction, translation_noise=config.translation_noise)
    return Policy(PolicyConfig(expert=expert, vlm=bridge.config), bridge, Expert(expert).to(device))


def _resume_iteration(config: TrainConfig, init_from: InitFrom, run: RunFolder) -> int | None:
    latest = run.latest_iteration()
    if latest is not None and not init_from.resume:
        flag = '--va-conti' if config.stage is TrainingStage.VA_PRIOR else '--vla-conti'
        raise ConfigError(f'{run.folder} holds a run at iteration {latest}; resume it with {flag}, or give another '
                          'name with --va-name or --vla-name')
    return latest


def _resume(checkpoint: Checkpoint, config: TrainConfig, contract: Mapping[str, Any], device: torch.device) -> Policy:
    checkpoint.require_stage(config.stage)
    checkpoint.require_contract(contract)
    _check_size(checkpoint, config)
    trained = checkpoint.vlm or VlmConfig()
    if trained.mode is not config.vlm.mode:
        raise ConfigError(f'{checkpoint.source} was trained with vlm.mode {trained.mode.value}, this run has '
                          f'{config.vlm.mode.value}; give --vlm-mode {trained.mode.value}')
    return build_policy(checkpoint, device=device, vlm=config.vlm)


def _initialize_from(checkpoint: Checkpoint, config: TrainConfig, contract: Mapping[str, Any],
                     device: torch.device) -> tuple[Policy, TransferReport | None]:
    """Load weights of another run; they transfer across robots, so contract differences are logged, not refused."""
    _check_size(checkpoint, config)
    _check_prediction(checkpoint, config)
    if checkpoint.expert.stage is TrainingStage.VLA:
        checkpoint.require_stage(config.stage)
    for line in mismatches(checkpoint.contract or contract, contract):
        log.warning('%s, this run: %s', checkpoint.source, line)
    policy = build_new_policy(config, device)
    _load_vlm(policy.vlm, checkpoint)
    if checkpoint.expert.stage is config.stage:
        load_weights(policy.expert, checkpoint.weights, source=checkpoint.source)
        return policy, None
    return policy, transfer_prior(checkpoint.weights, policy.expert, config.transfer)


def _load_vlm(bridge: VlmBridge, checkpoint: Checkpoint) -> None:
    if checkpoint.vlm_weights is None:
        return
    has_adapters = any('lora_' in key for key in checkpoint.vlm_weights)
    needed = VlmMode.LORA if has_adapters else VlmMode.FULL
    if bridge.config.mode is not needed and bridge.config.name != TINY_VLM:
        raise ConfigError(f'{checkpoint.source} holds a fine-tuned VLM, whose weights would be lost with vlm.mode '
                          f'{bridge.config.mode.value}; give --vlm-mode {needed.value}')
    if has_adapters == (bridge.config.mode is VlmMode.LORA):
        load_vlm_weights(bridge, checkpoint.vlm_weights, source=checkpoint.source)


def _check_size(checkpoint: Checkpoint, config: TrainConfig) -> None:
    got = (checkpoint.expert.width, checkpoint.expert.heads)
    if got != config.expert.value:
        raise ConfigError(f'{checkpoint.source} holds an expert of width {got[0]} with {got[1]} heads; recipe '
                          f'{config.recipe} has {config.expert.value[0]} with {config.expert.value[1]}: '
                          'choose a --config of that size')


def _check_prediction(checkpoint: Checkpoint, config: TrainConfig) -> None:
    trained, wanted = (f'to predict {one.prediction.name.lower()} under noise of {one.translation_noise:g} m on '
                       'translations' for one in (checkpoint.expert, config))
    if trained != wanted:
        raise ConfigError(f'{checkpoint.source} was trained {trained}, recipe {config.recipe} trains {wanted}; '
                          'choose a --config with the same')


def _freeze_prior(policy: Policy, transfer: TransferReport | None) -> None:
    if transfer is None:
        raise ConfigError('freeze_prior is set but the run has no prior; give --va-name or --pretrained-ckpt of one')
    for name, parameter in policy.expert.named_parameters():
        # The gate is one weight for all blocks, old and new, so it stays trainable.
        if name in transfer.copied and name != GATE:
            parameter.requires_grad_(False)
