"""Configuration that the flags of ``apt-train`` ask for. Nothing is opened or started here."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apt_policy.core.shipped import shipped_contract
from apt_policy.model.config import TrainingStage, VlmMode
from apt_policy.model.stages import Transfer
from apt_policy.moved import current_vlm
from apt_training.train.arguments import TrainFlags
from apt_training.train.config import BackendKind, ConfigError, TrainConfig, TrainingPrecision, require_cacheable
from apt_training.train.recipes import recipe

CONTRACT = 'aloha.yaml'
"""Contract of the robot where none is named."""


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Training that the command line asks for: the configuration of each stage, and what surrounds it."""

    stages: tuple[TrainConfig, ...]
    """Configurations in the order in which they are trained."""
    names: dict[TrainingStage, str]
    resume: dict[TrainingStage, bool]
    gpus: int
    """Processes to start; 0 and 1 are this one."""
    data: tuple[str, ...]
    locations: Path | None
    contract: Path
    ckpt_dir: Path
    log_dir: Path
    pretrained: Path | None
    load_from_va: bool | None
    """True if stage 1 starts from a prior; None accepts a checkpoint of its own stage as well."""
    feature_cache: Path | None
    fill_feature_cache: bool
    preflight: str | None
    """Checkpoint to check; empty checks only what the other flags name; None trains."""


def resolve(given: TrainFlags) -> TrainArguments:
    """Return what the flags ask for, with the recipe's values where there is no flag.

    Raises:
        ConfigError: values that do not go together.
        ContractError: no contract is named, and the shipped one is not installed.
    """
    both = (TrainingStage.VA_PRIOR, TrainingStage.VLA)
    stages = both if given.stage == 'both' else (TrainingStage.parse(given.stage),)
    if given.load_from_va is False and given.stage == 'both':
        raise ConfigError('--no-load-from-va with --stage both would train a prior for nothing; use --stage 1')
    if given.fill_feature_cache and given.feature_cache is None:
        raise ConfigError('--fill-feature-cache needs to know where: give --feature-cache DIR')
    configs = tuple(_config(stage, given) for stage in stages)
    if given.feature_cache is not None:
        for config in configs:
            require_cacheable(config)
    return TrainArguments(
        stages=configs, gpus=given.gpus, data=tuple(given.data), locations=given.locations,
        names={TrainingStage.VA_PRIOR: given.va_name or f'{given.config}_va',
               TrainingStage.VLA: given.vla_name or f'{given.config}_vla'},
        resume={TrainingStage.VA_PRIOR: given.va_conti, TrainingStage.VLA: given.vla_conti},
        contract=given.contract or shipped_contract(CONTRACT), ckpt_dir=given.ckpt_dir,
        log_dir=given.log_dir or given.ckpt_dir / 'logs', pretrained=given.pretrained_ckpt,
        load_from_va=given.load_from_va, feature_cache=given.feature_cache,
        fill_feature_cache=given.fill_feature_cache,
        preflight=None if given.preflight is None else ' '.join(given.preflight))


def _config(stage: TrainingStage, given: TrainFlags) -> TrainConfig:
    mode = VlmMode(given.vlm_mode)
    if mode is not VlmMode.FROZEN and given.stage != 'both' and stage is TrainingStage.VA_PRIOR:
        raise ConfigError(f'--vlm-mode {mode.value} with --stage 0: the prior is trained over a frozen VLM; '
                          'give it with --stage 1 or both')
    config = recipe(given.config, stage, vlm_mode=mode)
    changes: dict[str, Any] = {field: value for field, value in {
        'backend': BackendKind(given.backend), 'zero_stage': given.ds_zero, 'batch_size': given.batch_size,
        'iterations': given.max_steps, 'accumulation_steps': given.accum, 'noise_samples': given.noise_samples,
        'seed': given.seed,
        'workers': given.workers, 'loader_timeout_s': given.dataloader_timeout, 'log_every': given.log_every,
        'precision': None if given.precision is None else TrainingPrecision(given.precision),
        'augment': given.augment, 'transfer': None if given.transfer is None else Transfer(given.transfer),
        'freeze_prior': given.freeze_prior if stage is TrainingStage.VLA else None}.items() if value is not None}
    optim: dict[str, Any] = {field: value for field, value in {
        'lr': given.lr, 'vlm_lr': given.vlm_lr, 'warmup': given.warmup, 'cooldown': given.cooldown}.items()
        if value is not None}
    vlm_name = given.vlm and current_vlm(given.vlm)
    vlm: dict[str, Any] = {field: value for field, value in {
        'name': vlm_name, 'gradient_checkpointing': given.gc}.items() if value is not None}
    checkpoint: dict[str, Any] = {} if given.save_every is None else {'interval': given.save_every}
    return replace(config, **changes, optim=replace(config.optim, **optim), vlm=replace(config.vlm, **vlm),
                   checkpoint=replace(config.checkpoint, **checkpoint))
