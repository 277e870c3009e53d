from dataclasses import replace

import pytest

from apt_policy.cli import parse
from apt_policy.model.config import ExpertSize, TrainingStage, VlmConfig, VlmMode
from apt_policy.model.perturb import Perturbation
from apt_policy.model.stages import Transfer
from apt_training.train.arguments import TrainFlags
from apt_training.train.config import BackendKind, ConfigError, OptimConfig, TrainConfig, require_cacheable
from apt_training.train.flags import resolve
from apt_training.train.recipes import RECIPES, recipe


def asked(words):
    """Training that a command line asks for."""
    return resolve(parse(TrainFlags, words.split(), program='apt-train'))



def test_the_base_recipe_has_the_papers_values():
    config = recipe('base', TrainingStage.VA_PRIOR)
    assert (config.expert, config.iterations, config.batch_size) == (ExpertSize.BASE, 100_000, 64)
    assert (config.optim.lr, config.optim.weight_decay, config.optim.vlm_weight_decay) == (1e-4, 1e-2, 1e-10)
    assert (config.optim.warmup, config.optim.clip, config.ema) == (10_000, 1.0, None)


def test_the_released_configurations_have_their_own():
    long, tuned = recipe('base_600k', TrainingStage.VA_PRIOR), recipe('finetune_70k', TrainingStage.VLA)
    assert (long.iterations, long.ema.decay, long.ema.start) == (600_000, 0.9995, 400_000)
    assert (tuned.iterations, tuned.optim.warmup) == (70_000, 2_000)


@pytest.mark.parametrize('name', RECIPES)
@pytest.mark.parametrize('stage', TrainingStage)
def test_every_recipe_stands_for_both_stages_and_knows_its_name(name, stage):
    config = recipe(name, stage, vlm_mode=VlmMode.LORA)
    assert (config.recipe, config.stage) == (name, stage)
    assert config.trains_vlm == (stage is TrainingStage.VLA)


def test_a_mistyped_recipe_suggests_the_nearest():
    with pytest.raises(ConfigError, match=r"no recipe 'debgu'; did you mean debug"):
        recipe('debgu', TrainingStage.VLA)


@pytest.mark.parametrize(('change', 'message'), [
    ({'batch_size': 0}, 'batch_size is 0; expected 1 or more'),
    ({'workers': -1}, 'workers is -1'),
    ({'zero_stage': 1}, r'zero_stage is 1; expected 2 or 3 \(--ds-zero\)'),
    ({'vlm': VlmConfig(mode=VlmMode.FULL)}, 'vlm.mode is full in stage 0'),
    ({'freeze_prior': True}, 'freeze_prior is set in stage 0'),
    ({'stage': TrainingStage.VLA, 'freeze_prior': True, 'transfer': Transfer.BLOCKS_ONLY}, 'use --transfer all')])
def test_inconsistent_values_name_the_field(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(TrainConfig(recipe='test', stage=TrainingStage.VA_PRIOR), **change)


def test_rates_and_averages_are_checked():
    with pytest.raises(ConfigError, match='optim.lr is -1'):
        OptimConfig(lr=-1)


def test_a_feature_cache_names_every_field_that_prevents_it():
    config = TrainConfig(recipe='test', stage=TrainingStage.VLA, vlm=VlmConfig(mode=VlmMode.LORA),
                         perturbation=Perturbation(camera_dropout=0.1))
    with pytest.raises(ConfigError, match=r'(?s)vlm-mode frozen.*--no-augment.*camera_dropout is 0.1'):
        require_cacheable(config)


def test_the_published_flags_keep_their_meaning():
    words = ('--backend deepspeed --gpus 4 --stage 1 --config small --va-name prior --vla-name robot --vla-conti '
             '--bs 8 --max-iter 70 --ds-zero 3 --accum 2 --vlm-mode lora --vlm-lr 2e-5 --gc '
             '--pretrained-ckpt x/ckpt_latest.pt --ckpt_dir runs --log_dir logs --dataloader_timeout 30')
    request = asked(words)
    config, = request.stages
    assert (config.backend, config.zero_stage, config.expert) == (BackendKind.DEEPSPEED, 3, ExpertSize.SMALL)
    assert (config.batch_size, config.iterations, config.accumulation_steps, config.loader_timeout_s) == (8, 70, 2, 30)
    assert (config.vlm.mode, config.vlm.gradient_checkpointing, config.optim.vlm_lr) == (VlmMode.LORA, True, 2e-5)
    assert request.gpus == 4
    assert (request.names[TrainingStage.VA_PRIOR], request.names[TrainingStage.VLA]) == ('prior', 'robot')
    assert request.resume == {TrainingStage.VA_PRIOR: False, TrainingStage.VLA: True}
    assert [str(path) for path in (request.pretrained, request.ckpt_dir, request.log_dir)] == [
        'x/ckpt_latest.pt', 'runs', 'logs']


def test_both_stages_train_the_prior_over_a_frozen_vlm_for_any_mode_of_the_vla():
    prior, vla = asked('--stage both --vlm-mode full --freeze-prior --draws 4').stages
    assert (prior.vlm.mode, vla.vlm.mode) == (VlmMode.FROZEN, VlmMode.FULL)
    assert (prior.freeze_prior, vla.freeze_prior) == (False, True)
    assert prior.noise_samples == vla.noise_samples == 4


@pytest.mark.parametrize(('words', 'message'), [
    ('--stage 0 --vlm-mode lora', '--vlm-mode lora with --stage 0'),
    ('--stage both --no-load-from-va', 'use --stage 1'),
    ('--feature-cache out/features', 'use --no-augment'),
    ('--no-augment --fill-feature-cache', 'give --feature-cache DIR')])
def test_flags_that_contradict_each_other_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        asked(words)
