"""Recipes: named training configurations, one function each.

``--config NAME`` selects a recipe; command-line flags override single values.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from apt_policy.core.errors import did_you_mean
from apt_policy.model.config import TINY_VLM, ExpertSize, Prediction, TrainingStage, VlmConfig, VlmMode
from apt_training.train.config import CheckpointConfig, ConfigError, EmaConfig, OptimConfig, TrainConfig

Recipe = Callable[[TrainingStage], TrainConfig]


def base(stage: TrainingStage) -> TrainConfig:
    """Return the paper's configuration: base expert, Qwen3-VL-2B, 100k iterations of 4 x 64 samples per stage."""
    return TrainConfig(recipe='base', stage=stage)


def base_600k(stage: TrainingStage) -> TrainConfig:
    """Return the released pretraining configuration: 600k iterations, averaged weights from 400k on."""
    return replace(base(stage), recipe='base_600k', iterations=600_000, ema=EmaConfig())


def finetune_70k(stage: TrainingStage) -> TrainConfig:
    """Return the released fine-tuning configuration: 70k iterations, 2k of them warm-up."""
    return replace(base(stage), recipe='finetune_70k', iterations=70_000, optim=OptimConfig(warmup=2_000))


def sized(stage: TrainingStage, *, name: str, expert: ExpertSize) -> TrainConfig:
    """Return the paper's configuration with a smaller expert."""
    return replace(base(stage), recipe=name, expert=expert)


def debug(stage: TrainingStage) -> TrainConfig:
    """Return a smoke test: tiny expert over the tiny VLM that is built in code, a minute on two CPU cores."""
    return TrainConfig(
        recipe='debug', stage=stage, expert=ExpertSize.TINY, vlm=VlmConfig(name=TINY_VLM, dtype='float32'),
        optim=OptimConfig(lr=1e-3, warmup=10),
        checkpoint=CheckpointConfig(interval=50, keep_latest=2, milestone_interval=0),
        iterations=100, batch_size=4, workers=1, log_every=10)


def tutorial(stage: TrainingStage) -> TrainConfig:
    """Return the tutorial's configuration: as debug, but long enough to fit ten scripted episodes in minutes."""
    return replace(debug(stage), recipe='tutorial', iterations=600, batch_size=8, workers=1,
                   optim=OptimConfig(lr=1e-3, warmup=50),
                   checkpoint=CheckpointConfig(interval=200, keep_latest=2, milestone_interval=0), log_every=25)


def demo(stage: TrainingStage) -> TrainConfig:
    """Return the study's configuration: tiny expert over a small VLM that was fine-tuned on this scene (``--vlm``).

    Images are not augmented, because that VLM knows the cameras in one order only.
    """
    return TrainConfig(
        recipe='demo', stage=stage, expert=ExpertSize.TINY, vlm=VlmConfig(name=TINY_VLM, dtype='float32'),
        optim=OptimConfig(lr=1e-3, warmup=100, cooldown=0.3), ema=EmaConfig(decay=0.995, start=200),
        checkpoint=CheckpointConfig(interval=250, keep_latest=2, milestone_interval=0), iterations=5_000,
        batch_size=32, noise_samples=4, workers=1,
        augment=False, prediction=Prediction.ACTIONS, translation_noise=0.1, log_every=25)


RECIPES: Mapping[str, Recipe] = MappingProxyType({
    'base': base,
    'base_600k': base_600k,
    'finetune_70k': finetune_70k,
    'small': partial(sized, name='small', expert=ExpertSize.SMALL),
    'tiny': partial(sized, name='tiny', expert=ExpertSize.TINY),
    'debug': debug,
    'demo': demo,
    'tutorial': tutorial,
})


def recipe(name: str, stage: TrainingStage, *, vlm_mode: VlmMode = VlmMode.FROZEN) -> TrainConfig:
    """Return the configuration of a recipe.

    Args:
        name: name of the recipe.
        stage: stage to train.
        vlm_mode: training mode of the VLM; applies to the VLA only.

    Raises:
        ConfigError: there is no such recipe; the message names the nearest one.
    """
    if name not in RECIPES:
        raise ConfigError(f'there is no recipe {name!r}' + (
            did_you_mean(name, RECIPES) or f'; there are {", ".join(RECIPES)}'))
    config = RECIPES[name](stage)
    if stage is TrainingStage.VLA:
        config = replace(config, vlm=replace(config.vlm, mode=vlm_mode))
    return config
