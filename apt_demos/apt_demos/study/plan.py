"""Steps of the study: does a prior that was trained without language help a policy to follow instructions?

Three training schemes are compared with the same data, number of training steps and number of weights: one stage; two
stages (APT: half of the steps for the prior); two stages with the prior frozen in the second. Each has several seeds,
which share VQA data, demonstrations and the vision-language model.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from apt_demos.steps.step import CommandStep, Phase
from apt_sim.evaluation.splits import TEST_SPLITS, parse_skills
from apt_sim.world.physics import PHYSICS_VERSION
from apt_sim.world.scene import RENDERING_VERSION


class Variant(Enum):
    """Training scheme of a policy."""

    ONE_STAGE = 'one_stage'
    TWO_STAGES = 'two_stages'
    FROZEN_PRIOR = 'frozen_prior'

    @property
    def words(self) -> str:
        """Name in tables."""
        return {Variant.ONE_STAGE: 'one stage', Variant.TWO_STAGES: 'two stages (APT)',
                Variant.FROZEN_PRIOR: 'two stages, prior frozen'}[self]


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Sizes of the study; the field names are the keys of its saved configuration."""

    sheets: int
    """Number of VQA shards of fifty scenes for the vision-language model."""
    looking: int
    """Number of grounding warm-up steps of the vision-language model."""
    lessons: int
    """Number of fine-tuning steps of the vision-language model after the warm-up."""
    skills: str
    """Skills, separated by commas."""
    demonstrations: int
    """Number of demonstrations."""
    iterations: int
    """Number of training iterations of each of two stages; one stage has twice as many."""
    batch: int
    """Batch size of policy training."""
    trials: int
    """Number of rollouts of each split for each policy."""
    seeds: int = 3
    """Number of policies of each variant."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the test splits that are feasible with the skills.

        Raises:
            SplitError: a skill does not exist.
        """
        skills = parse_skills(self.skills)
        return tuple(split.value for split in TEST_SPLITS if split.required_skill is None
                     or split.required_skill in skills)


FULL = StudyConfig(
    sheets=1000, looking=5000, lessons=6000, skills='pick,place', demonstrations=4000, iterations=10_000, batch=32,
    trials=100)
"""Full size; about two days on two cores, extrapolated from a smaller run. It has not been run."""
QUICK = StudyConfig(
    sheets=60, looking=150, lessons=100, skills='pick', demonstrations=150, iterations=60, batch=16, trials=4)
"""Quick size, sixteen minutes on two cores; it shows that everything runs, but its differences are chance."""

# More rollouts or seeds leave the trained policies valid, so they are not part of the saved configuration.
_MAY_GROW = ('trials', 'seeds')
_LESSON_BATCH = 32
"""Number of conversations per step over all processes."""


def score_file(out: Path, config: StudyConfig, variant: Variant, seed: int) -> Path:
    """Return the file with the scores of one policy."""
    return out / f'scores_{config.trials}' / f'{variant.value}_{seed}.json'


@dataclass(frozen=True, kw_only=True)
class StudySetup:
    """Inputs and output folder of a study."""

    out: Path
    """Folder of all outputs."""
    contract: Path
    """Path of the simulated robot's contract."""
    config: StudyConfig
    """Sizes of the study."""
    pretrained_vlm: str = ''
    """Existing Qwen3-VL by hub name or folder; empty fine-tunes a small one."""
    existing_data: tuple[str, ...] = ()
    """Folders of existing demonstrations, each with an optional weight (``FOLDER=2``); empty collects new ones."""

    def facts(self) -> dict[str, object]:
        """Return the configuration that determines the outputs, for JSON."""
        config = {name: size for name, size in vars(self.config).items() if name not in _MAY_GROW}
        return {**config, 'vlm': self.pretrained_vlm, 'data': list(self.existing_data), 'physics': PHYSICS_VERSION,
                'pictures': RENDERING_VERSION}

    @property
    def vlm(self) -> str:
        """Hub name or folder of the vision-language model that all policies share."""
        return self.pretrained_vlm or str(self.out / 'vlm')

    @property
    def data(self) -> tuple[str, ...]:
        """Folders of the demonstrations that all policies share."""
        return self.existing_data or (str(self.out / 'demonstrations'),)


def steps(setting: StudySetup, *, jobs: int) -> tuple[Phase, ...]:
    """Return the steps from an empty folder to all scores.

    Args:
        setting: inputs and output folder.
        jobs: number of processes that may run in parallel.
    """
    seeds = range(setting.config.seeds)
    materials = (() if setting.pretrained_vlm else (_questions(setting, jobs),)) + (
        () if setting.existing_data else (_demonstrations(setting, jobs),))
    phases = (
        materials, () if setting.pretrained_vlm else (_lessons(setting, jobs),),
        tuple(_prior(setting, seed) for seed in seeds),
        tuple(_policy(setting, variant, seed) for seed in seeds for variant in Variant),
        tuple(_trials(setting, variant, seed) for seed in seeds for variant in Variant))
    return tuple(phase for phase in phases if phase)


def _questions(setting: StudySetup, jobs: int) -> CommandStep:
    folder = setting.out / 'questions'
    return CommandStep(
        name='questions', description='images of the table and conversations about them',
        program='apt-sim-vqa', module='apt_sim.vqa.main', output=folder, arguments=(
            '--shards', str(setting.config.sheets), '--contract', str(setting.contract), '--workers', _half(jobs),
            '--out', str(folder)))


def _demonstrations(setting: StudySetup, jobs: int) -> CommandStep:
    config, (folder,) = setting.config, setting.data
    return CommandStep(
        name='demonstrations', description='scripted demonstrations of few instructions in many scenes',
        program='apt-sim-collect', module='apt_sim.collect.main', output=Path(folder), arguments=(
            '--split', 'train', '--skills', config.skills, '--episodes', str(config.demonstrations),
            '--action-noise', '0.01', '--recovery-share', '0.3', '--no-vary-cameras',
            '--contract', str(setting.contract), '--workers', _half(jobs), '--out', folder))


def _half(jobs: int) -> str:
    """Return the number of processes for each of two parallel steps."""
    return str(max(1, jobs // 2))


def _lessons(setting: StudySetup, jobs: int) -> CommandStep:
    # A divisor of the batch, so that the total batch size does not depend on the machine.
    processes = max(number for number in range(1, _LESSON_BATCH + 1) if number <= jobs and _LESSON_BATCH % number == 0)
    return CommandStep(
        name='lessons', description='a small vision-language model learns names and positions of objects',
        program='torchrun', module='torch.distributed.run', output=Path(setting.vlm) / 'config.json', arguments=(
            '--standalone', '--nproc-per-node', str(processes), '-m', 'apt_training.vlm_finetune.main',
            str(setting.out / 'questions'), '--grounding-steps', str(setting.config.looking),
            '--max-steps', str(setting.config.lessons), '--batch-size', str(_LESSON_BATCH // processes),
            '--workers', '0', '--out', setting.vlm))


def _prior(setting: StudySetup, seed: int) -> CommandStep:
    name, iterations = f'prior_{seed}', setting.config.iterations
    return CommandStep(
        name=f'prior {seed}', description='stage 0: the vision-action prior, without language', program='apt-train',
        module='apt_training.train.main', output=_checkpoint(setting, name, iterations),
        arguments=('--stage', '0', '--va-name', name, '--va-conti', *_training(setting, seed, iterations)))


def _policy(setting: StudySetup, variant: Variant, seed: int) -> CommandStep:
    name = f'{variant.value}_{seed}'
    iterations = setting.config.iterations * (2 if variant is Variant.ONE_STAGE else 1)
    origin = {Variant.ONE_STAGE: ('--no-load-from-va',), Variant.TWO_STAGES: ('--va-name', f'prior_{seed}'),
              Variant.FROZEN_PRIOR: ('--va-name', f'prior_{seed}', '--freeze-prior')}[variant]
    return CommandStep(
        name=f'{variant.value} {seed}', description=f'{variant.words}, seed {seed}', program='apt-train',
        module='apt_training.train.main', output=_checkpoint(setting, name, iterations),
        arguments=('--stage', '1', *origin, '--vla-name', name, '--vla-conti', *_training(setting, seed, iterations)))


def _training(setting: StudySetup, seed: int, iterations: int) -> tuple[str, ...]:
    return ('--config', 'demo', '--vlm', setting.vlm, '--data', *setting.data, '--contract', str(setting.contract),
            '--gpus', '0', '--workers', '0', '--batch-size', str(setting.config.batch), '--max-steps', str(iterations),
            '--seed', str(seed), '--ckpt-dir', str(setting.out / 'runs'))


def _trials(setting: StudySetup, variant: Variant, seed: int) -> CommandStep:
    config = setting.config
    scores = score_file(setting.out, config, variant, seed)
    return CommandStep(
        name=f'trials {variant.value} {seed}', description=f'{variant.words}, seed {seed}, in closed loop',
        program='apt-sim-eval', module='apt_sim.evaluation.main', output=scores, arguments=(
            '--checkpoint', str(setting.out / 'runs' / f'{variant.value}_{seed}'), '--split', ','.join(config.splits),
            '--skills', config.skills, '--episodes', str(config.trials), '--contract', str(setting.contract),
            '--workers', '1', '--json', str(scores)))


def _checkpoint(setting: StudySetup, name: str, iterations: int) -> Path:
    return setting.out / 'runs' / name / f'iter_{iterations:06d}'
