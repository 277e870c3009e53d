"""What a training run is made of, as frozen values checked when they are built.

One run trains one stage. Which values belong together under a name is ``recipes``', what the
command line changes of them ``flags``'.
"""

from dataclasses import dataclass, field
from enum import Enum

from apt_policy.core.errors import UserError
from apt_policy.model.config import ExpertSize, Prediction, Stage, VlmConfig, VlmMode
from apt_policy.model.perturb import TURN_ONLY, Perturbation
from apt_policy.model.stages import Transfer


class ConfigError(UserError, ValueError):
    """Values that do not go together; the message names the field and what to do."""


class BackendKind(Enum):
    """Who spreads a step over processes."""

    DDP = 'ddp'
    """torch: every process holds everything."""
    DEEPSPEED = 'deepspeed'
    """ZeRO: optimizer state (2), and weights as well (3), are divided among processes."""


class Precision(Enum):
    """What the expert computes in; its weights are kept in float32 either way."""

    AUTO = 'auto'
    """bfloat16 on a GPU, float32 on a CPU."""
    FLOAT32 = 'float32'
    BFLOAT16 = 'bfloat16'


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with a linear warm-up, a constant rate behind it and, if wanted, a linear cooldown at the end."""

    lr: float = 1e-4
    weight_decay: float = 1e-2
    """Of weight matrices; biases and norms have none."""
    vlm_lr: float = 1e-5
    """Of a VLM that learns."""
    vlm_weight_decay: float = 1e-10
    warmup: int = 10_000
    """Iterations until the full rate."""
    cooldown: float = 0.0
    """Share of the iterations, the last ones, over which the rate falls to nothing; published runs have none."""
    clip: float = 1.0
    """Largest norm of the whole gradient."""

    def __post_init__(self) -> None:
        for name in ('lr', 'vlm_lr', 'clip'):
            if getattr(self, name) <= 0:
                raise ConfigError(f'optim.{name} is {getattr(self, name)}; expected more than 0')
        if self.warmup < 0:
            raise ConfigError(f'optim.warmup is {self.warmup}; expected 0 or more iterations')
        if not 0 <= self.cooldown <= 1:
            raise ConfigError(f'optim.cooldown is {self.cooldown}; expected a share of the iterations, 0 to 1')


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """A running average of the weights, saved beside them."""

    decay: float = 0.9995
    start: int = 400_000
    """Iteration at which it begins, as a copy of the weights."""

    def __post_init__(self) -> None:
        if not 0 < self.decay < 1:
            raise ConfigError(f'ema.decay is {self.decay}; expected between 0 and 1, such as 0.9995')


@dataclass(frozen=True, kw_only=True)
class KeepConfig:
    """Which checkpoints are written and kept."""

    every: int = 5_000
    """Iterations between two."""
    last: int = 3
    """So many of the newest stay."""
    milestone_every: int = 50_000
    """Those at multiples of this stay for good; 0 keeps none."""

    def __post_init__(self) -> None:
        if self.every < 1 or self.last < 1:
            raise ConfigError(f'keep.every is {self.every} and keep.last {self.last}; both need 1 or more')


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One stage of one run."""

    recipe: str
    stage: Stage
    expert: ExpertSize = ExpertSize.BASE
    vlm: VlmConfig = field(default_factory=VlmConfig)
    optim: OptimConfig = OptimConfig()
    ema: EmaConfig | None = None
    keep: KeepConfig = KeepConfig()
    perturbation: Perturbation = TURN_ONLY
    transfer: Transfer = Transfer.ALL
    freeze_prior: bool = False
    """In the VLA, what came from the prior does not learn."""
    iterations: int = 100_000
    batch: int = 64
    """Samples per process and pass."""
    accumulation: int = 1
    """Passes per iteration."""
    prediction: Prediction = Prediction.NOISE
    translation_noise: float = 1.0
    """Both: see :class:`~apt_policy.model.config.ExpertConfig`."""
    draws: int = 1
    """Noise draws per sample; they share the VLM's features and the expert's vision-language half."""
    backend: BackendKind = BackendKind.DDP
    zero_stage: int = 2
    precision: Precision = Precision.AUTO
    seed: int = 0
    workers: int = 4
    """Loading processes per training process; 0 loads in the training process."""
    loader_timeout_s: float = 600.0
    """A batch that takes longer ends the run; 0 waits forever."""
    augment: bool = True
    """Colours, blur, order of cameras."""
    log_every: int = 50
    max_bad_batches: int = 10
    """So many batches in a row without a finite loss end the run."""

    def __post_init__(self) -> None:
        for name in ('iterations', 'batch', 'accumulation', 'draws', 'log_every', 'max_bad_batches'):
            if getattr(self, name) < 1:
                raise ConfigError(f'{name} is {getattr(self, name)}; expected 1 or more')
        if self.workers < 0:
            raise ConfigError(f'workers is {self.workers}; expected 0 or more')
        if self.zero_stage not in (2, 3):
            raise ConfigError(f'zero_stage is {self.zero_stage}; expected 2 or 3 (--ds-zero)')
        if self.stage is Stage.VA_PRIOR and self.vlm.mode is not VlmMode.FROZEN:
            raise ConfigError(f'vlm.mode is {self.vlm.mode.value} in stage 0; the prior is trained over a frozen '
                              'VLM: give --vlm-mode with --stage 1 or both')
        if self.freeze_prior and self.stage is Stage.VA_PRIOR:
            raise ConfigError('freeze_prior is set in stage 0, which trains the prior; give it with stage 1')
        if self.freeze_prior and self.transfer is not Transfer.ALL:
            raise ConfigError(f'freeze_prior with transfer {self.transfer.value} would freeze blocks behind fresh '
                              'projections; use --transfer all')

    @property
    def learns_vlm(self) -> bool:
        """Whether any weight of the VLM does."""
        return self.vlm.mode is not VlmMode.FROZEN


def require_cacheable(config: TrainConfig) -> None:
    """Refuse a run whose VLM features change from one epoch to the next.

    Raises:
        ConfigError: naming each field in the way.
    """
    problems = []
    if config.learns_vlm:
        problems.append(f'vlm.mode is {config.vlm.mode.value}: features of a VLM that learns are stale at once; '
                        'use --vlm-mode frozen')
    if config.augment:
        problems.append('augment is on: no image comes twice; use --no-augment')
    if config.perturbation.camera_dropout > 0:
        problems.append(f'perturbation.camera_dropout is {config.perturbation.camera_dropout}: '
                        'it changes what the VLM sees; set it to 0')
    if problems:
        raise ConfigError('VLM features cannot be cached:\n  ' + '\n  '.join(problems))
