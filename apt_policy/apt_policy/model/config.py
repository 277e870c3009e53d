"""Configuration of the model as frozen dataclasses.

Sizes that follow from the shape of a weight are read from the state dict by
:func:`expert_config_from_weights`, so a published checkpoint needs no configuration file.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

MAX_ARMS = 4
"""Number of arm embeddings in published weights."""
TAP_STRIDE = 3
"""Decoder layers of the VLM from one tap to the next, as in published weights."""
TINY_VLM = 'tiny'
"""Name in :class:`VlmConfig` of the tiny VLM that is built in code."""


class TrainingStage(Enum):
    """Training stage of the expert. The paper counts from 1, the released code from 0."""

    VA_PRIOR = 'va_prior'
    """Vision-action prior; language is masked."""
    VLA = 'vla'
    """Vision-language-action model: blocks that read language are inserted between the prior's."""

    @classmethod
    def parse(cls, text: str) -> 'TrainingStage':
        """Parse ``0``/``va`` or ``1``/``vla`` of a command line.

        Raises:
            ValueError: the text is none of these.
        """
        names = {'0': cls.VA_PRIOR, 'va': cls.VA_PRIOR, cls.VA_PRIOR.value: cls.VA_PRIOR,
                 '1': cls.VLA, 'vla': cls.VLA}
        if text not in names:
            raise ValueError(f'stage is {text!r}; expected one of {", ".join(names)}')
        return names[text]


class Prediction(Enum):
    """Prediction type of the expert; values as in ``diffusers``."""

    NOISE = 'epsilon'
    """Noise in the actions, as in published weights."""
    ACTIONS = 'sample'
    """Actions without noise; a small expert learns them from the observation sooner at high noise levels."""


class ExpertSize(Enum):
    """Published sizes as (width, heads)."""

    TINY = (192, 3)
    SMALL = (384, 6)
    BASE = (768, 12)


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """Sizes and diffusion parameters of the action expert."""

    stage: TrainingStage
    width: int
    """Channels of a token (D)."""
    heads: int
    vlm_width: int
    """Channels of the VLM's features."""
    taps: int
    """Number of VLM layers that are read (N)."""
    train_steps: int = 100
    """Number of noise levels of the diffusion."""
    denoising_steps: int = 20
    prediction: Prediction = Prediction.NOISE
    translation_noise: float = 1.0
    """Standard deviation of the noise on translations [m]; 1 in published weights. If chunks reach only some
    centimetres, noise of that size needs much less training."""

    def __post_init__(self) -> None:
        if not self.translation_noise > 0:
            raise ValueError(f'translation_noise is {self.translation_noise} m; expected more than 0')
        if self.width % self.heads or self.head_dim % 8:
            raise ValueError(f'width {self.width} over {self.heads} heads gives a head of '
                             f'{self.width / self.heads:g} channels; expected a multiple of 8, '
                             'because PRoPE uses half of it in groups of 4')
        if self.taps < 2:
            raise ValueError(f'taps is {self.taps}; the VA prior needs at least 2')
        if self.taps % 2:
            raise ValueError(f'taps is {self.taps}; expected an even number, because every second block of the VLA is '
                             f'the prior\'s. One tap is read every {TAP_STRIDE} decoder layers of the VLM: use one '
                             f'whose layers give {self.taps - 1} or {self.taps + 1} of them '
                             f'({_layers_for(self.taps - 1)} or {_layers_for(self.taps + 1)})')
        if not 0 < self.denoising_steps <= self.train_steps:
            raise ValueError(f'denoising_steps is {self.denoising_steps}; '
                             f'expected 1 to train_steps ({self.train_steps})')

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.width // self.heads

    @property
    def blocks(self) -> int:
        """Number of attention blocks."""
        return self.taps if self.stage is TrainingStage.VLA else self.taps // 2


def _layers_for(taps: int) -> str:
    """Describe the numbers of decoder layers that give ``taps`` taps."""
    return f'{TAP_STRIDE * (taps - 1) + 1} to {TAP_STRIDE * taps} layers'


class VlmMode(Enum):
    """Part of the VLM that is trained."""

    FROZEN = 'frozen'
    LORA = 'lora'
    FULL = 'full'


@dataclass(frozen=True, kw_only=True)
class VlmConfig:
    """Configuration of the vision-language backbone."""

    name: str = 'Qwen/Qwen3-VL-2B-Instruct'
    """Hub name, local folder, or :data:`TINY_VLM`."""
    mode: VlmMode = VlmMode.FROZEN
    dtype: str = 'bfloat16'
    gradient_checkpointing: bool = False
    max_text_tokens: int = 2048
    """Length above which an instruction is refused, because it would take seconds of inference [tokens]."""

    def __post_init__(self) -> None:
        if self.dtype not in ('bfloat16', 'float32'):
            raise ValueError(f"dtype is {self.dtype!r}; expected 'bfloat16' or 'float32'")


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Configuration of the whole model."""

    expert: ExpertConfig
    vlm: VlmConfig = field(default_factory=VlmConfig)


def check_noise_scale(scale: float) -> None:
    """Check the scale of the initial noise.

    Raises:
        ValueError: the scale is outside 0..1.
    """
    if not 0.0 <= scale <= 1.0:
        raise ValueError(f'noise_scale is {scale}; expected 0 (deterministic) .. 1 (as in training)')


def expert_config_from_weights(weights: Mapping[str, Any], *, denoising_steps: int = 20) -> ExpertConfig:
    """Read the sizes from an expert's state dict (names as in published checkpoints).

    Raises:
        KeyError: a weight that determines a size is absent.
    """
    stack = 'dp_head.traj_context_attn'
    width, vlm_width = weights['context_encoder.proj_input.weight'].shape
    taps = weights[f'{stack}.gate'].shape[0]
    head_dim = weights[f'{stack}.layers.0.attn.q_norm.weight'].shape[0]
    blocks = len({key.split('.')[3] for key in weights if key.startswith(f'{stack}.layers.')})
    stage = TrainingStage.VLA if blocks == taps else TrainingStage.VA_PRIOR
    return ExpertConfig(stage=stage, width=width, heads=width // head_dim, vlm_width=vlm_width,
                        taps=taps, denoising_steps=denoising_steps)


def policy_config_to_dict(config: PolicyConfig) -> dict[str, Any]:
    """Convert a configuration to JSON types."""
    fields = asdict(config)
    fields['expert']['stage'] = config.expert.stage.value
    fields['expert']['prediction'] = config.expert.prediction.value
    fields['vlm']['mode'] = config.vlm.mode.value
    return fields


def policy_config_from_dict(fields: Mapping[str, Any]) -> PolicyConfig:
    """Build a configuration from JSON types; the inverse of :func:`policy_config_to_dict`.

    Raises:
        TypeError, KeyError, ValueError: a field is missing, unknown or out of range.
    """
    expert, vlm = dict(fields['expert']), dict(fields['vlm'])
    expert['prediction'] = Prediction(expert.get('prediction', Prediction.NOISE.value))
    return PolicyConfig(expert=ExpertConfig(**{**expert, 'stage': TrainingStage(expert['stage'])}),
                        vlm=VlmConfig(**{**vlm, 'mode': VlmMode(vlm['mode'])}))
