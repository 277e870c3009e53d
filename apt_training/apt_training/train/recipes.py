"""The named runs: one function each, from a stage to all of its values.

``--config NAME`` picks one; the command line may change single values.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from apt_policy.model.config import TINY_VLM, ExpertSize, Prediction, Stage, VlmConfig, VlmMode
from apt_training.train.config import ConfigError, EmaConfig, KeepConfig, OptimConfig, TrainConfig

Recipe = Callable[[Stage], TrainConfig]


def base(stage: Stage) -> TrainConfig:
    """The paper's: base expert, Qwen3-VL-2B, 100k iterations of 4 x 64 per stage."""
    return TrainConfig(recipe='base', stage=stage)


def base_600k(stage: Stage) -> TrainConfig:
    """The released configuration for pretraining: 600k iterations, average of the weights from 400k."""
    return replace(base(stage), recipe='base_600k', iterations=600_000, ema=EmaConfig())


def finetune_70k(stage: Stage) -> TrainConfig:
    """The released configuration for fine-tuning: 70k iterations, warm-up 2k."""
    return replace(base(stage), recipe='finetune_70k', iterations=70_000, optim=OptimConfig(warmup=2_000))


def sized(stage: Stage, *, name: str, expert: ExpertSize) -> TrainConfig:
    """The paper's run with a smaller expert."""
    return replace(base(stage), recipe=name, expert=expert)


def debug(stage: Stage) -> TrainConfig:
    """Tiny expert over the tiny VLM that is built in code: a minute on two cores, learns nothing worth having."""
    return TrainConfig(
        recipe='debug', stage=stage, expert=ExpertSize.TINY, vlm=VlmConfig(name=TINY_VLM, dtype='float32'),
        optim=OptimConfig(lr=1e-3, warmup=10), keep=KeepConfig(every=50, last=2, milestone_every=0),
        iterations=100, batch=4, workers=1, log_every=10)


def tutorial(stage: Stage) -> TrainConfig:
    """Like debug, long enough to fit ten scripted episodes: some minutes on two cores."""
    return replace(debug(stage), recipe='tutorial', iterations=600, batch=8, workers=1,
                   optim=OptimConfig(lr=1e-3, warmup=50),
                   keep=KeepConfig(every=200, last=2, milestone_every=0), log_every=25)


def demo(stage: Stage) -> TrainConfig:
    """What the study is made with: the tiny expert over a small VLM that has been taught
    (``apt-finetune-vlm``; name it with ``--vlm``). Pictures stay as they are: the VLM knows the cameras in one order
    only."""
    return TrainConfig(
        recipe='demo', stage=stage, expert=ExpertSize.TINY, vlm=VlmConfig(name=TINY_VLM, dtype='float32'),
        optim=OptimConfig(lr=1e-3, warmup=100, cooldown=0.3), ema=EmaConfig(decay=0.995, start=200),
        keep=KeepConfig(every=250, last=2, milestone_every=0), iterations=5_000, batch=32, draws=4, workers=1,
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


def recipe(name: str, stage: Stage, *, vlm_mode: VlmMode = VlmMode.FROZEN) -> TrainConfig:
    """The recipe ``name`` for ``stage``; the mode of the VLM counts in the VLA only.

    Raises:
        ConfigError: no such recipe, with the nearest name.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f'did you mean {near[0]!r}?' if near else f'there are {", ".join(RECIPES)}'
        raise ConfigError(f'no recipe {name!r}; {hint}')
    config = RECIPES[name](stage)
    if stage is Stage.VLA:
        config = replace(config, vlm=replace(config.vlm, mode=vlm_mode))
    return config
