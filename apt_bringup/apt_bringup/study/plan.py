"""The study's steps: does a prior that was learned without language help a policy to do what it is told?

Three ways to the same policy, with the same data, the same number of training steps and the same number of weights:
in one stage; in two (APT: half of the steps for the prior); in two with the prior frozen in the second. Each with
several seeds, which share the pictures, the demonstrations and the vision-language model. Words only; nothing is run.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from apt_bringup.steps.step import Phase, Step


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
    splits: tuple[str, ...]
    demonstrations: int
    iterations: int
    """Of each of two stages; one stage has twice as many."""
    batch: int
    trials: int
    """Of each split, for each policy."""
    seeds: int = 3


FULL = Sizes(
    sheets=1000, looking=5000, lessons=6000, skills='pick,place', demonstrations=4000, iterations=10_000, batch=32,
    trials=100, splits=('seen', 'unseen_object', 'unseen_container', 'unseen_wording', 'composed'))
"""Not run yet: long, and on the CPU."""
QUICK = Sizes(
    sheets=60, looking=250, lessons=100, skills='pick', demonstrations=150, iterations=60, batch=16, trials=10,
    splits=('seen', 'unseen_object', 'unseen_wording'))
"""Chosen for twenty minutes on two cores, not timed yet; shows that everything runs, hardly more."""

VLM = 'vlm'
_LESSON_BATCH = 32
"""Conversations per step, of all processes."""


def score_file(out: Path, variant: Variant, seed: int) -> Path:
    """What the trials of one policy came to."""
    return out / 'scores' / f'{variant.value}_{seed}.json'


def steps(out: Path, contract: Path, sizes: Sizes, *, jobs: int) -> tuple[Phase, ...]:
    """Everything from an empty folder to all scores.

    Args:
        out: folder of all products.
        contract: of the simulated robot.
        jobs: processes that may run at the same time.
    """
    seeds = range(sizes.seeds)
    return (
        (_questions(out, contract, sizes, jobs), _demonstrations(out, contract, sizes, jobs)),
        (_lessons(out, sizes, jobs),),
        tuple(_prior(out, contract, sizes, seed) for seed in seeds),
        tuple(_policy(out, contract, sizes, variant, seed) for seed in seeds for variant in Variant),
        tuple(_trials(out, contract, sizes, variant, seed) for seed in seeds for variant in Variant))


def _questions(out: Path, contract: Path, sizes: Sizes, jobs: int) -> Step:
    folder = out / 'questions'
    return Step(name='questions', why='pictures of the table and conversations about them', typed='apt-sim-questions',
                module='apt_bringup.questions.main', product=folder, words=(
                    '--sheets', str(sizes.sheets), '--contract', str(contract), '--jobs', _half(jobs),
                    '--out', str(folder)))


def _demonstrations(out: Path, contract: Path, sizes: Sizes, jobs: int) -> Step:
    folder = out / 'demonstrations'
    return Step(name='demonstrations', why='scripted demonstrations of few instructions in many scenes',
                typed='apt-sim-data', module='apt_bringup.trials.data_main', product=folder, words=(
                    '--split', 'train', '--skills', sizes.skills, '--episodes', str(sizes.demonstrations),
                    '--disturb', '0.01', '--contract', str(contract), '--jobs', _half(jobs), '--out', str(folder)))


def _half(jobs: int) -> str:
    """For each of two steps side by side."""
    return str(max(1, jobs // 2))


def _lessons(out: Path, sizes: Sizes, jobs: int) -> Step:
    folder = out / VLM
    # A divisor, so that all of them together take the same step whatever the machine.
    processes = max(number for number in range(1, _LESSON_BATCH + 1) if number <= jobs and _LESSON_BATCH % number == 0)
    return Step(name='lessons', why='a small vision-language model learns what things are called and where they are',
                typed='torchrun', module='torch.distributed.run', product=folder / 'config.json', words=(
                    '--standalone', '--nproc-per-node', str(processes), '-m', 'apt_training.teach.main',
                    str(out / 'questions'), '--looking', str(sizes.looking), '--steps', str(sizes.lessons),
                    '--bs', str(_LESSON_BATCH // processes), '--workers', '0', '--out', str(folder)))


def _prior(out: Path, contract: Path, sizes: Sizes, seed: int) -> Step:
    name = f'prior_{seed}'
    return Step(
        name=f'prior {seed}', why='stage 0: how the arms move, without language', typed='apt-train',
        module='apt_training.train.main', product=_checkpoint(out, name, sizes.iterations),
        words=('--stage', '0', '--va-name', name, '--va-conti',
               *_training(out, contract, sizes, seed, sizes.iterations)))


def _policy(out: Path, contract: Path, sizes: Sizes, variant: Variant, seed: int) -> Step:
    name = f'{variant.value}_{seed}'
    iterations = sizes.iterations * (2 if variant is Variant.ONE_STAGE else 1)
    origin = {Variant.ONE_STAGE: ('--no-load-from-va',), Variant.TWO_STAGES: ('--va-name', f'prior_{seed}'),
              Variant.FROZEN_PRIOR: ('--va-name', f'prior_{seed}', '--freeze-prior')}[variant]
    return Step(
        name=f'{variant.value} {seed}', why=f'{variant.words}, seed {seed}', typed='apt-train',
        module='apt_training.train.main', product=_checkpoint(out, name, iterations),
        words=('--stage', '1', *origin, '--vla-name', name, '--vla-conti',
               *_training(out, contract, sizes, seed, iterations)))


def _training(out: Path, contract: Path, sizes: Sizes, seed: int, iterations: int) -> tuple[str, ...]:
    return ('--config', 'demo', '--vlm', str(out / VLM), '--data', str(out / 'demonstrations'), '--contract',
            str(contract), '--gpus', '0', '--workers', '0', '--bs', str(sizes.batch), '--max-iter', str(iterations),
            '--seed', str(seed), '--ckpt_dir', str(out / 'runs'))


def _trials(out: Path, contract: Path, sizes: Sizes, variant: Variant, seed: int) -> Step:
    scores, run = score_file(out, variant, seed), out / 'runs' / f'{variant.value}_{seed}'
    return Step(
        name=f'trials {variant.value} {seed}', why=f'{variant.words}, seed {seed}, in closed loop',
        typed='apt-sim-eval', module='apt_bringup.trials.eval_main', product=scores, words=(
            '--checkpoint', str(run), '--split', ','.join(sizes.splits), '--skills', sizes.skills, '--episodes',
            str(sizes.trials), '--contract', str(contract), '--jobs', '1', '--json', str(scores)))


def _checkpoint(out: Path, name: str, iterations: int) -> Path:
    return out / 'runs' / name / f'iter_{iterations:06d}'
