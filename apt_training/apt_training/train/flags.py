"""The command line of ``apt-train``: flags with their published names, and which configuration they make.

A flag that is not given leaves the recipe's value. Nothing is opened or started here.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from apt_policy.core.shipped import shipped_contract
from apt_policy.model.config import Stage, VlmMode
from apt_policy.model.stages import Transfer
from apt_training.train.config import BackendKind, ConfigError, TrainConfig, TrainingPrecision, require_cacheable
from apt_training.train.recipes import RECIPES, recipe

CONTRACT = 'aloha.yaml'
"""Unless one is named."""
EPILOG = """
examples:
  apt-train --config debug --stage both --data out/episodes --contract config/aloha_sim.yaml --gpus 0
  apt-train --config base --stage 0 --data Droid=10 AgiBotWorld=10 --gpus 4 --backend ddp --va-name prior
  apt-train --config base --stage 1 --data my_robot --va-name prior --vla-name robot --vlm-mode lora --vla-conti
  torchrun --nnodes 2 --nproc-per-node 8 ... -m apt_training.train.main --config base ...

exit status: 0 done, 75 stopped by SIGINT or SIGTERM and saved (the same command with --va-conti --vla-conti goes
on), 2 arguments that cannot be used, 1 anything else.
"""


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """What the command line asks for, besides the configuration of each stage."""

    stages: tuple[TrainConfig, ...]
    """In the order in which they are trained."""
    names: dict[Stage, str]
    resume: dict[Stage, bool]
    gpus: int
    """Processes to start; 0 and 1 are this one."""
    data: tuple[str, ...]
    locations: Path | None
    contract: Path
    ckpt_dir: Path
    log_dir: Path
    pretrained: Path | None
    load_from_va: bool | None
    """Whether stage 1 starts from a prior; None: it does, and a checkpoint of its own stage will do as well."""
    feature_cache: Path | None
    fill_feature_cache: bool
    preflight: str | None
    """A checkpoint to check; empty: only what the other flags name."""


def parse(words: Sequence[str] | None = None) -> TrainArguments:
    """Read the command line.

    Raises:
        ConfigError: values that do not go together.
        ContractError: no contract is named, and the shipped one is not installed.
        SystemExit: words that argparse refuses, or ``--help``.
    """
    given = parser().parse_args(words)
    stages = (Stage.VA_PRIOR, Stage.VLA) if given.stage == 'both' else (Stage.parse(given.stage),)
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
        names={Stage.VA_PRIOR: given.va_name or f'{given.config}_va',
               Stage.VLA: given.vla_name or f'{given.config}_vla'},
        resume={Stage.VA_PRIOR: given.va_conti, Stage.VLA: given.vla_conti},
        contract=given.contract or shipped_contract(CONTRACT), ckpt_dir=given.ckpt_dir,
        log_dir=given.log_dir or given.ckpt_dir / 'logs', pretrained=given.pretrained_ckpt,
        load_from_va=given.load_from_va, feature_cache=given.feature_cache,
        fill_feature_cache=given.fill_feature_cache, preflight=given.preflight)


def _config(stage: Stage, given: argparse.Namespace) -> TrainConfig:
    mode = VlmMode(given.vlm_mode)
    if mode is not VlmMode.FROZEN and given.stage != 'both' and stage is Stage.VA_PRIOR:
        raise ConfigError(f'--vlm-mode {mode.value} with --stage 0: the prior is trained over a frozen VLM; '
                          'give it with --stage 1 or both')
    config = recipe(given.config, stage, vlm_mode=mode)
    changes = {field: value for field, value in {
        'backend': BackendKind(given.backend), 'zero_stage': given.ds_zero, 'batch_size': given.bs,
        'iterations': given.max_iter, 'accumulation_steps': given.accum, 'noise_samples': given.draws,
        'seed': given.seed, 'workers': given.workers, 'loader_timeout_s': given.dataloader_timeout,
        'log_every': given.log_every,
        'precision': None if given.precision is None else TrainingPrecision(given.precision),
        'augment': given.augment, 'transfer': None if given.transfer is None else Transfer(given.transfer),
        'freeze_prior': given.freeze_prior if stage is Stage.VLA else None}.items() if value is not None}
    optim = {field: value for field, value in {
        'lr': given.lr, 'vlm_lr': given.vlm_lr, 'warmup': given.warmup, 'cooldown': given.cooldown}.items()
        if value is not None}
    vlm = {field: value for field, value in {'name': given.vlm, 'gradient_checkpointing': given.gc}.items()
           if value is not None}
    checkpoint = {} if given.save_every is None else {'interval': given.save_every}
    return replace(config, **changes, optim=replace(config.optim, **optim), vlm=replace(config.vlm, **vlm),
                   checkpoint=replace(config.checkpoint, **checkpoint))


def parser() -> argparse.ArgumentParser:
    """Of ``apt-train``."""
    top = argparse.ArgumentParser(prog='apt-train', epilog=EPILOG,
                                  formatter_class=argparse.RawDescriptionHelpFormatter,
                                  description='Train an APT policy: the vision-action prior (stage 0), the VLA on top '
                                              'of it (stage 1), or both in a row.')
    _add_run(top.add_argument_group('run'))
    _add_values(top.add_argument_group('values, in place of the recipe\'s'))
    _add_data(top.add_argument_group('data'))
    return top


def _add_run(group: argparse._ArgumentGroup) -> None:
    add, switch = group.add_argument, argparse.BooleanOptionalAction
    add('--stage', default='both', choices=('0', 'va', '1', 'vla', 'both'), help='default: both')
    add('--config', default='base', metavar='RECIPE', help=', '.join(RECIPES))
    add('--backend', default='ddp', choices=[kind.value for kind in BackendKind])
    add('--gpus', type=int, default=1, metavar='N',
        help='processes on this machine, one per GPU; without a GPU, N processes on the CPU; 0: one, on the CPU')
    add('--ds-zero', type=int, choices=(2, 3), help='DeepSpeed: divide optimizer state (2), weights too (3)')
    add('--va-name', metavar='NAME', help='run folder of stage 0 in --ckpt_dir; default: RECIPE_va')
    add('--vla-name', metavar='NAME', help='run folder of stage 1; default: RECIPE_vla')
    add('--va-conti', action='store_true', help='go on with stage 0 where it stopped, if it has begun')
    add('--vla-conti', action='store_true', help='likewise stage 1')
    add('--load-from-va', action=switch, default=None, help='start stage 1 from the prior; default: yes')
    add('--pretrained-ckpt', type=Path, metavar='PATH', help='start from a checkpoint folder or a ckpt_latest.pt')
    add('--ckpt_dir', '--ckpt-dir', type=Path, default=Path('out/runs'), help='default: out/runs')
    add('--log_dir', '--log-dir', type=Path, help='default: logs in --ckpt_dir')
    # The DeepSpeed launcher appends it; the environment says the same.
    add('--local_rank', type=int, help=argparse.SUPPRESS)
    add('--preflight', nargs='?', const='', metavar='CKPT',
        help='check this checkpoint, data, disk and one pass for --stage, train nothing')


def _add_values(group: argparse._ArgumentGroup) -> None:
    add, switch = group.add_argument, argparse.BooleanOptionalAction
    add('--bs', type=int, metavar='N', help='samples per process and pass')
    add('--accum', type=int, metavar='N', help='passes per step')
    add('--draws', type=int, metavar='N', help='noise draws per sample, which share one run of the VLM')
    add('--max-iter', type=int, metavar='N', help='iterations per stage')
    add('--lr', type=float)
    add('--warmup', type=int, metavar='N', help='iterations until the full rate')
    add('--cooldown', type=float, metavar='SHARE', help='of the iterations: at the end, the rate falls to nothing')
    add('--vlm', metavar='NAME', help='Qwen3-VL by hub name or folder, or "tiny"')
    add('--vlm-mode', default='frozen', choices=[mode.value for mode in VlmMode], help='in stage 1; default: frozen')
    add('--vlm-lr', type=float)
    add('--gc', action=switch, help='gradient checkpointing in the VLM')
    add('--precision', choices=[kind.value for kind in TrainingPrecision])
    add('--transfer', choices=[kind.value for kind in Transfer],
        help='what stage 1 takes from the prior; blocks_only as the released code does')
    add('--freeze-prior', action=switch, help='in stage 1, only what is new learns')
    add('--seed', type=int)
    add('--save-every', type=int, metavar='N', help='iterations between checkpoints')
    add('--log-every', type=int, metavar='N', help='iterations between records')


def _add_data(group: argparse._ArgumentGroup) -> None:
    add, switch = group.add_argument, argparse.BooleanOptionalAction
    add('--data', nargs='+', default=[], metavar='NAME[=WEIGHT]', help='datasets by name, or folders of episodes')
    add('--locations', type=Path, metavar='FILE', help='where named datasets lie')
    add('--contract', type=Path, metavar='FILE', help=f'of the robot; default: {CONTRACT}, which is installed')
    add('--workers', type=int, metavar='N', help='loading processes per process')
    add('--dataloader_timeout', '--dataloader-timeout', type=float, metavar='S',
        help='a batch that takes longer ends the run; 0 waits forever')
    add('--augment', action=switch, help='colours, blur, order of cameras')
    add('--feature-cache', type=Path, metavar='DIR', help='keep what a frozen VLM says of each sample here')
    add('--fill-feature-cache', action='store_true', help='run the VLM over every frame first')
