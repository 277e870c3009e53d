"""Command line of ``apt-train``: flags with their published names. A flag that is absent leaves the recipe's value."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from apt_policy.cli import UsageError, flag

_RECIPE = 'that of the recipe'
_SWITCH = flag('{True,False}', default=_RECIPE)


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """Flags of the run: what is trained, where, and from which weights."""

    stage: Literal['0', 'va', '1', 'vla', 'both'] = 'both'
    """Stage to train: the prior (0, va), the VLA (1, vla), or both in a row."""
    config: Annotated[str, flag('RECIPE')] = 'base'
    """Recipe: base, base_600k, finetune_70k, small, tiny, debug, demo or tutorial."""
    backend: Literal['ddp', 'deepspeed'] = 'ddp'
    """Library for distributed training."""
    gpus: Annotated[int, flag('N')] = 1
    """Processes on this machine, one per GPU; without a GPU, N processes on the CPU; 0: one, on the CPU."""
    ds_zero: Annotated[Literal[2, 3] | None, flag('{2,3}', default='')] = None
    """ZeRO stage of DeepSpeed: partition optimizer state (2), weights too (3)."""
    va_name: Annotated[str, flag('NAME', default='RECIPE_va')] = ''
    """Run folder of stage 0 in --ckpt-dir."""
    vla_name: Annotated[str, flag('NAME', default='RECIPE_vla')] = ''
    """Run folder of stage 1."""
    va_conti: bool = False
    """Resume stage 0 from its latest checkpoint, if there is one."""
    vla_conti: bool = False
    """Resume stage 1 from its latest checkpoint, if there is one."""
    load_from_va: Annotated[bool | None, flag('{True,False}', default='True')] = None
    """Start stage 1 from the prior."""
    pretrained_ckpt: Annotated[Path | None, flag('PATH', default='')] = None
    """Checkpoint folder or ckpt_latest.pt to start from."""
    ckpt_dir: Annotated[Path, flag('FOLDER')] = Path('out/runs')
    """Folder of the runs."""
    log_dir: Annotated[Path | None, flag('FOLDER', default='logs in --ckpt-dir')] = None
    """Folder of the logs."""
    local_rank: Annotated[int | None, flag('N', default='')] = None
    """Rank on this machine, as the DeepSpeed launcher passes it; the environment counts."""
    preflight: Annotated[tuple[str, ...] | None, flag('[CHECKPOINT]', default='')] = None
    """Check this checkpoint, data, disk and one step for --stage, and train nothing."""


@dataclass(frozen=True, kw_only=True)
class HyperparameterFlags:
    """Flags that replace values of the recipe."""

    batch_size: Annotated[int | None, flag('N', '--bs', default=_RECIPE)] = None
    """Samples per process and forward pass."""
    accum: Annotated[int | None, flag('N', default=_RECIPE)] = None
    """Gradient-accumulation steps."""
    noise_samples: Annotated[int | None, flag('N', '--draws', default=_RECIPE)] = None
    """Noise samples per observation, which share one forward pass of the VLM."""
    max_steps: Annotated[int | None, flag('N', '--max-iter', default=_RECIPE)] = None
    """Optimizer steps per stage."""
    lr: Annotated[float | None, flag('X', default=_RECIPE)] = None
    """Peak learning rate."""
    warmup: Annotated[int | None, flag('N', default=_RECIPE)] = None
    """Warm-up steps."""
    cooldown: Annotated[float | None, flag('SHARE', default=_RECIPE)] = None
    """Share of the steps, at the end, in which the learning rate decays to zero."""
    vlm: Annotated[str | None, flag('NAME', default=_RECIPE)] = None
    """Qwen3-VL by hub name or folder, or "tiny"."""
    vlm_mode: Literal['frozen', 'lora', 'full'] = 'frozen'
    """Training of the VLM in stage 1."""
    vlm_lr: Annotated[float | None, flag('X', default=_RECIPE)] = None
    """Peak learning rate of the VLM."""
    gc: Annotated[bool | None, _SWITCH] = None
    """Gradient checkpointing in the VLM; --no-gc turns it off."""
    precision: Annotated[Literal['auto', 'float32', 'bfloat16'] | None,
                         flag('{auto,float32,bfloat16}', default=_RECIPE)] = None
    """Precision of the computation."""
    transfer: Annotated[Literal['all', 'blocks_only'] | None, flag('{all,blocks_only}', default=_RECIPE)] = None
    """Weights that stage 1 takes from the prior; blocks_only as in the released code."""
    freeze_prior: Annotated[bool | None, _SWITCH] = None
    """Train only the new weights in stage 1; --no-freeze-prior trains all."""
    seed: Annotated[int | None, flag('N', default=_RECIPE)] = None
    """Seed of weights, noise and order of samples."""
    save_every: Annotated[int | None, flag('N', default=_RECIPE)] = None
    """Steps between checkpoints."""
    log_every: Annotated[int | None, flag('N', default=_RECIPE)] = None
    """Steps between records of metrics."""


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """Flags of the data."""

    data: Annotated[tuple[str, ...], flag('NAME[=WEIGHT] [...]', default='')] = ()
    """Datasets by name, or folders of episodes."""
    locations: Annotated[Path | None, flag('FILE', default='')] = None
    """File with the folders of named datasets."""
    contract: Annotated[Path | None, flag('FILE', default='the installed aloha.yaml')] = None
    """Contract of the robot."""
    workers: Annotated[int | None, flag('N', default=_RECIPE)] = None
    """Loading processes per training process."""
    dataloader_timeout: Annotated[float | None, flag('S', default=_RECIPE)] = None
    """A batch that takes longer ends the run [s]; 0 waits forever."""
    augment: Annotated[bool | None, _SWITCH] = None
    """Augment colours, blur and order of cameras; --no-augment turns it off."""
    feature_cache: Annotated[Path | None, flag('FOLDER', default='')] = None
    """Cache the features of a frozen VLM here."""
    fill_feature_cache: bool = False
    """Run the VLM over every frame before training."""


@dataclass(frozen=True, kw_only=True)
class TrainFlags(DataFlags, HyperparameterFlags, RunFlags):
    """Train an APT policy: the vision-action prior (stage 0), the VLA on top of it (stage 1), or both in a row."""

    def __post_init__(self) -> None:
        """Check flags that do not depend on the recipe.

        Raises:
            UsageError: more than one checkpoint to check.
        """
        if self.preflight is not None and len(self.preflight) > 1:
            raise UsageError(f'--preflight is {" ".join(self.preflight)}; expected at most one checkpoint')
