"""Configuration of a training run: frozen dataclasses that check their values.

One configuration trains one stage. Named configurations are in :mod:`~apt_training.train.recipes`, the flags that
override their values in :mod:`~apt_training.train.flags`.
"""

from dataclasses import dataclass, field
from enum import Enum

from apt_policy.core.errors import UserError
from apt_policy.model.config import ExpertSize, Prediction, TrainingStage, VlmConfig, VlmMode
from apt_policy.model.perturb import TURN_ONLY, Perturbation
from apt_policy.model.stages import Transfer


class ConfigError(UserError, ValueError):
    """Invalid or inconsistent configuration; the message names the field and the fix."""


class BackendKind(Enum):
    """Implementation of distributed training."""

    DDP = 'ddp'
    """torch's DistributedDataParallel: every rank holds all weights and optimizer state."""
    DEEPSPEED = 'deepspeed'
    """DeepSpeed's ZeRO: ranks share the optimizer state (stage 2) and the weights (stage 3)."""


class TrainingPrecision(Enum):
    """Data type of the expert's computation; its weights are float32 in each case."""

    AUTO = 'auto'
    """bfloat16 on a GPU, float32 on a CPU."""
    FLOAT32 = 'float32'
    BFLOAT16 = 'bfloat16'


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up, constant learning rate and an optional linear cooldown."""

    lr: float = 1e-4
    """Learning rate of the expert; the paper's value."""
    weight_decay: float = 1e-2
    """Weight decay of matrices; biases and norms have none."""
    vlm_lr: float = 1e-5
    """Learning rate of a VLM that is trained."""
    vlm_weight_decay: float = 1e-10
    """Weight decay of a VLM that is trained."""
    warmup: int = 10_000
    """Iterations of linear warm-up."""
    cooldown: float = 0.0
    """Share of the iterations at the end over which the learning rate falls to 0; published runs use 0."""
    clip: float = 1.0
    """Maximum norm of the whole gradient."""

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
    """Exponential moving average of the weights, saved beside them."""

    decay: float = 0.9995
    """Weight of the old average in each update; the released configuration's value."""
    start: int = 400_000
    """Iteration at which the average starts as a copy of the weights."""

    def __post_init__(self) -> None:
        if not 0 < self.decay < 1:
            raise ConfigError(f'ema.decay is {self.decay}; expected between 0 and 1, such as 0.9995')


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Interval of checkpoints, and number of checkpoints kept."""

    interval: int = 5_000
    """Iterations between two checkpoints."""
    keep_latest: int = 3
    """Number of newest checkpoints that are kept."""
    milestone_interval: int = 50_000
    """Checkpoints at multiples of this iteration are kept for good; 0 keeps none."""

    def __post_init__(self) -> None:
        if self.interval < 1 or self.keep_latest < 1:
            raise ConfigError(f'checkpoint.interval is {self.interval} and checkpoint.keep_latest {self.keep_latest}; '
                              'expected 1 or more')


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Configuration of one stage of one run."""

    recipe: str
    stage: TrainingStage
    expert: ExpertSize = ExpertSize.BASE
    vlm: VlmConfig = field(default_factory=VlmConfig)
    optim: OptimConfig = OptimConfig()
    ema: EmaConfig | None = None
    checkpoint: CheckpointConfig = CheckpointConfig()
    perturbation: Perturbation = TURN_ONLY
    transfer: Transfer = Transfer.ALL
    freeze_prior: bool = False
    """True to train only the new weights of a VLA, and freeze those that came from the prior."""
    iterations: int = 100_000
    batch_size: int = 64
    """Samples per rank and micro-batch."""
    accumulation_steps: int = 1
    """Micro-batches per iteration and rank."""
    prediction: Prediction = Prediction.NOISE
    """Quantity that the expert predicts; see :class:`~apt_policy.model.config.ExpertConfig`."""
    translation_noise: float = 1.0
    """Scale of the noise on translations [m]; see :class:`~apt_policy.model.config.ExpertConfig`."""
    noise_samples: int = 1
    """Noise samples per observation; they share the VLM's features and the expert's vision-language stream."""
    backend: BackendKind = BackendKind.DDP
    zero_stage: int = 2
    precision: TrainingPrecision = TrainingPrecision.AUTO
    seed: int = 0
    workers: int = 4
    """Loading processes per rank; 0 loads in the training process."""
    loader_timeout_s: float = 600.0
    """Time after which a missing batch ends the run [s]; 0 waits forever."""
    augment: bool = True
    """True to augment images (colour, blur) and shuffle the order of cameras."""
    log_every: int = 50
    """Iterations between two log entries."""
    max_bad_batches: int = 10
    """Number of batches in a row without a finite loss that ends the run."""

    def __post_init__(self) -> None:
        for name in ('iterations', 'batch_size', 'accumulation_steps', 'noise_samples', 'log_every', 'max_bad_batches'):
            if getattr(self, name) < 1:
                raise ConfigError(f'{name} is {getattr(self, name)}; expected 1 or more')
        if self.workers < 0:
            raise ConfigError(f'workers is {self.workers}; expected 0 or more')
        if self.zero_stage not in (2, 3):
            raise ConfigError(f'zero_stage is {self.zero_stage}; expected 2 or 3 (--ds-zero)')
        if self.stage is TrainingStage.VA_PRIOR and self.vlm.mode is not VlmMode.FROZEN:
            raise ConfigError(f'vlm.mode is {self.vlm.mode.value} in stage 0, which trains the prior over a frozen '
                              'VLM; give --vlm-mode with --stage 1 or both')
        if self.freeze_prior and self.stage is TrainingStage.VA_PRIOR:
            raise ConfigError('freeze_prior is set in stage 0, which trains the prior; give it with stage 1')
        if self.freeze_prior and self.transfer is not Transfer.ALL:
            raise ConfigError(f'freeze_prior with transfer {self.transfer.value} would freeze blocks after randomly '
                              'initialized projections; use --transfer all')

    @property
    def trains_vlm(self) -> bool:
        """True if any weight of the VLM is trained."""
        return self.vlm.mode is not VlmMode.FROZEN


def require_cacheable(config: TrainConfig) -> None:
    """Check that the VLM's features of a frame stay the same from one epoch to the next.

    Raises:
        ConfigError: they change; the message names each field that prevents caching.
    """
    problems = []
    if config.trains_vlm:
        problems.append(f'vlm.mode is {config.vlm.mode.value}: training the VLM changes its features; '
                        'use --vlm-mode frozen')
    if config.augment:
        problems.append('augment is on: augmented images differ in every epoch; use --no-augment')
    if config.perturbation.camera_dropout > 0:
        problems.append(f'perturbation.camera_dropout is {config.perturbation.camera_dropout}: '
                        'it changes the input of the VLM; set it to 0')
    if problems:
        raise ConfigError('VLM features cannot be cached:\n  ' + '\n  '.join(problems))
