"""The study's steps: does a prior that was learned without language help a policy to do what it is told?

Three ways to the same policy, with the same data, the same number of training steps and the same number of weights:
in one stage; in two (APT: half of the steps for the prior); in two with the prior frozen in the second. Each with
several seeds, which share the pictures, the demonstrations and the vision-language model. Words only; nothing is run.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from apt_demos.steps.step import Phase, Step
from apt_sim.evaluation.splits import TESTS, skills_named
from apt_sim.world.physics import PHYSICS
from apt_sim.world.scene import PICTURES


class Variant(Enum):
    """How the policy is trained."""

    ONE_STAGE = 'one_stage'
    TWO_STAGES = 'two_stages'
    FROZEN_PRIOR = 'frozen_prior'

    @property
    def words(self) -> str:
        """For tables."""
        return {Variant.ONE_STAGE: 'one stage', Variant.TWO_STAGES: 'two stages (APT)',
                Variant.FROZEN_PRIOR: 'two stages, prior frozen'}[self]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything."""

    sheets: int
    """Of fifty scenes with questions, for the vision-language model."""
    looking: int
    """Steps in which it learns to see."""
    lessons: int
    """Steps in which it learns to talk about that."""
    skills: str
    """Separated by commas."""
    demonstrations: int
    iterations: int
    """Of each of two stages; one stage has twice as many."""
    batch: int
    trials: int
    """Of each split, for each policy."""
    seeds: int = 3

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the tests that the skills allow.

        Raises:
            SplitError: no such skill.
        """
        skills = skills_named(self.skills)
        return tuple(split.value for split in TESTS if split.needs is None or split.needs in skills)


FULL = Sizes(
    sheets=1000, looking=5000, lessons=6000, skills='pick,place', demonstrations=4000, iterations=10_000, batch=32,
    trials=100)
"""Not run in this size: about two days on two cores, by the rate of a smaller one."""
QUICK = Sizes(
    sheets=60, looking=150, lessons=100, skills='pick', demonstrations=150, iterations=60, batch=16, trials=4)
"""Sixteen minutes on two cores. Shows that everything runs, hardly more."""

# More trials or seeds need nothing that was trained made anew.
_MAY_GROW = ('trials', 'seeds')
_LESSON_BATCH = 32
"""Conversations per step, of all processes."""


def score_file(out: Path, sizes: Sizes, variant: Variant, seed: int) -> Path:
    """What the trials of one policy came to."""
    return out / f'scores_{sizes.trials}' / f'{variant.value}_{seed}.json'


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a study is made in and of."""

    out: Path
    """Folder of all products."""
    contract: Path
    """Of the simulated robot."""
    sizes: Sizes
    own_vlm: str = ''
    """Qwen3-VL by hub name or folder that is there already; empty: one is taught."""
    own_data: tuple[str, ...] = ()
    """Folders of demonstrations that are there already, each with its weight (``FOLDER=2``); none: some are made."""

    def facts(self) -> dict[str, object]:
        """For JSON: what decides the products, but for how many of them there are."""
        sizes = {name: size for name, size in vars(self.sizes).items() if name not in _MAY_GROW}
        return {**sizes, 'vlm': self.own_vlm, 'data': list(self.own_data), 'physics': PHYSICS, 'pictures': PICTURES}

    @property
    def vlm(self) -> str:
        """Hub name or folder of the vision-language model that all policies share."""
        return self.own_vlm or str(self.out / 'vlm')

    @property
    def data(self) -> tuple[str, ...]:
        """Folders of the demonstrations that all policies share."""
        return self.own_data or (str(self.out / 'demonstrations'),)


def steps(setting: Setting, *, jobs: int) -> tuple[Phase, ...]:
    """Everything from an empty folder to all scores; ``jobs`` processes may run at the same time."""
    seeds = range(setting.sizes.seeds)
    materials = (() if setting.own_vlm else (_questions(setting, jobs),)) + (
        () if setting.own_data else (_demonstrations(setting, jobs),))
    phases = (
        materials, () if setting.own_vlm else (_lessons(setting, jobs),),
        tuple(_prior(setting, seed) for seed in seeds),
        tuple(_policy(setting, variant, seed) for seed in seeds for variant in Variant),
        tuple(_trials(setting, variant, seed) for seed in seeds for variant in Variant))
    return tuple(phase for phase in phases if phase)


def _questions(setting: Setting, jobs: int) -> Step:
    folder = setting.out / 'questions'
    return Step(name='questions', why='pictures of the table and conversations about them', typed='apt-sim-vqa',
                module='apt_sim.vqa.main', product=folder, words=(
                    '--shards', str(setting.sizes.sheets), '--contract', str(setting.contract),
                    '--workers', _half(jobs), '--out', str(folder)))


def _demonstrations(setting: Setting, jobs: int) -> Step:
    sizes, (folder,) = setting.sizes, setting.data
    return Step(name='demonstrations', why='scripted demonstrations of few instructions in many scenes',
                typed='apt-sim-collect', module='apt_sim.collect.main', product=Path(folder), words=(
                    '--split', 'train', '--skills', sizes.skills, '--episodes', str(sizes.demonstrations),
                    '--action-noise', '0.01', '--recovery-share', '0.3', '--no-vary-cameras',
                    '--contract', str(setting.contract), '--workers', _half(jobs), '--out', folder))


def _half(jobs: int) -> str:
    """For each of two steps side by side."""
    return str(max(1, jobs // 2))


def _lessons(setting: Setting, jobs: int) -> Step:
    # A divisor, so that all of them together take the same step whatever the machine.
    processes = max(number for number in range(1, _LESSON_BATCH + 1) if number <= jobs and _LESSON_BATCH % number == 0)
    return Step(name='lessons', why='a small vision-language model learns what things are called and where they are',
                typed='torchrun', module='torch.distributed.run', product=Path(setting.vlm) / 'config.json', words=(
                    '--standalone', '--nproc-per-node', str(processes), '-m', 'apt_training.vlm_finetune.main',
                    str(setting.out / 'questions'), '--grounding-steps', str(setting.sizes.looking),
                    '--max-steps', str(setting.sizes.lessons), '--batch-size', str(_LESSON_BATCH // processes),
                    '--workers', '0', '--out', setting.vlm))


def _prior(setting: Setting, seed: int) -> Step:
    name, iterations = f'prior_{seed}', setting.sizes.iterations
    return Step(
        name=f'prior {seed}', why='stage 0: how the arms move, without language', typed='apt-train',
        module='apt_training.train.main', product=_checkpoint(setting, name, iterations),
        words=('--stage', '0', '--va-name', name, '--va-conti', *_training(setting, seed, iterations)))


def _policy(setting: Setting, variant: Variant, seed: int) -> Step:
    name = f'{variant.value}_{seed}'
    iterations = setting.sizes.iterations * (2 if variant is Variant.ONE_STAGE else 1)
    origin = {Variant.ONE_STAGE: ('--no-load-from-va',), Variant.TWO_STAGES: ('--va-name', f'prior_{seed}'),
              Variant.FROZEN_PRIOR: ('--va-name', f'prior_{seed}', '--freeze-prior')}[variant]
    return Step(
        name=f'{variant.value} {seed}', why=f'{variant.words}, seed {seed}', typed='apt-train',
        module='apt_training.train.main', product=_checkpoint(setting, name, iterations),
        words=('--stage', '1', *origin, '--vla-name', name, '--vla-conti', *_training(setting, seed, iterations)))


def _training(setting: Setting, seed: int, iterations: int) -> tuple[str, ...]:
    return ('--config', 'demo', '--vlm', setting.vlm, '--data', *setting.data, '--contract', str(setting.contract),
            '--gpus', '0', '--workers', '0', '--batch-size', str(setting.sizes.batch), '--max-steps', str(iterations),
            '--seed', str(seed), '--ckpt-dir', str(setting.out / 'runs'))


def _trials(setting: Setting, variant: Variant, seed: int) -> Step:
    sizes = setting.sizes
    scores = score_file(setting.out, sizes, variant, seed)
    return Step(
        name=f'trials {variant.value} {seed}', why=f'{variant.words}, seed {seed}, in closed loop',
        typed='apt-sim-eval', module='apt_sim.evaluation.main', product=scores, words=(
            '--checkpoint', str(setting.out / 'runs' / f'{variant.value}_{seed}'), '--split', ','.join(sizes.splits),
            '--skills', sizes.skills, '--episodes', str(sizes.trials), '--contract', str(setting.contract),
            '--workers', '1', '--json', str(scores)))


def _checkpoint(setting: Setting, name: str, iterations: int) -> Path:
    return setting.out / 'runs' / name / f'iter_{iterations:06d}'
