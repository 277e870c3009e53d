"""One evaluation: a policy, held-out episodes, and everything that is measured of the two.

Joins prediction, metrics, probe and gates into one value. How it is shown, and how the policy
was loaded, is others' business.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from apt_policy.model.config import check_noise_scale
from apt_policy.model.policy import Policy
from apt_training.data.dataset import EpisodeDataset
from apt_training.data.sample import Sample
from apt_training.evaluate.gates import GateLevel, gate_levels, gates_to_list
from apt_training.evaluate.metrics import UNITS, HorizonErrors, HorizonSums, errors_to_dict, overall
from apt_training.evaluate.predict import Place, Predictor, Questions, ask, picked
from apt_training.evaluate.probe import ProbeResult, ProbeSums, swap_instructions


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How much is measured, and from which noise."""

    samples: int = 8
    """K."""
    seed: int = 0
    batch: int = 8
    """Observations at once."""
    denoising_steps: int | None = None
    """None: the checkpoint's."""
    noise_scale: float = 1.0
    """Of the noise that plans start from, 0..1; at 0 all samples of an observation are the same."""
    probed: int = 64
    """Observations that the probe asks a second time; 0 leaves it out."""
    examples: int = 6
    """Observations that are kept to be drawn."""
    workers: int = 0
    """Loading processes."""

    def __post_init__(self) -> None:
        for name in ('samples', 'batch'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} is {getattr(self, name)}; expected 1 or more')
        for name in ('seed', 'probed', 'examples', 'workers'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name} is {getattr(self, name)}; expected 0 or more')
        check_noise_scale(self.noise_scale)
        if self.probed and self.samples < 2:
            raise ValueError('samples is 1: the probe needs 2 or more to know the noise floor; '
                             'give more samples, or leave the probe out')


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One observation with what was predicted for it."""

    sample: Sample
    predicted: Any
    """(K, T, A, 17)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What was measured."""

    arms: tuple[str, ...]
    step_s: float
    """Between two states of the horizon [s]."""
    errors: HorizonErrors
    probe: ProbeResult | None
    probe_note: str
    """Why there is no probe; empty where there is one."""
    gates: tuple[GateLevel, ...]
    examples: tuple[Example, ...]
    episodes: int
    observations: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        errors = self.errors
        return {
            'episodes': self.episodes, 'observations': self.observations, 'samples': errors.samples,
            'seed': self.seed, 'arms': list(self.arms), 'step_s': self.step_s, 'units': UNITS,
            'overall': {kind: overall(getattr(errors, kind), errors.observations) for kind in ('mean', 'best', 'hold')},
            'horizon': {kind: errors_to_dict(getattr(errors, kind), self.arms) for kind in ('mean', 'best', 'hold')},
            'probe': None if self.probe is None else self.probe.to_dict(), 'probe_note': self.probe_note,
            'gates': gates_to_list(self.gates)}


def evaluate(policy: Policy, dataset: EpisodeDataset, places: Sequence[Place], *, settings: EvaluationSettings,
             arms: Sequence[str], step_s: float, others: Sequence[str] = (),
             progress: Callable[[int], None] = lambda _: None) -> Evaluation:
    """Measure ``policy`` at ``places`` of ``dataset``.

    Args:
        policy: on its device; put into evaluation mode.
        dataset: of held-out episodes, all of the same arms.
        places: at least one.
        settings: how.
        arms: their names.
        step_s: between two states of the horizon [s].
        others: instructions to swap in; empty: those of the other episodes.
        progress: told how many observations are done.

    Raises:
        EpisodeError: an episode cannot be read.
        ValueError: a prediction is not finite, or there is no place.
        PromptError: the model cannot take an instruction.
    """
    predict = Predictor(policy, samples=settings.samples, seed=settings.seed,
                        denoising_steps=settings.denoising_steps, noise_scale=settings.noise_scale)
    own = {dataset.episode(place.episode).prompt(place.frame) for place in places}
    pool = set(others) or own
    note = _why_no_probe(own, pool, settings)
    sums, probe, examples = HorizonSums(dataset.window.horizon, len(arms)), ProbeSums(), []
    drawn = set(_spread(len(places), settings.examples))
    probed = set() if note else set(_spread(len(places), settings.probed))
    for questions in ask(dataset, places, device=policy.vlm.device, batch=settings.batch, workers=settings.workers):
        predicted = predict(questions.batch, questions.numbers)
        label, valid = questions.batch.future.cpu(), questions.batch.robot.valid_arms.cpu()
        sums.add(predicted, label, questions.batch.robot.history[:, -1].cpu(), valid)
        rows = [row for row, number in enumerate(questions.numbers) if number in probed]
        if rows:
            numbers = [questions.numbers[row] for row in rows]
            said = swap_instructions([questions.samples[row].prompt_text for row in rows], pool, numbers,
                                     seed=settings.seed)
            answers = predict(picked(questions.batch, rows, said), numbers)
            probe.add(predicted[rows], answers, label[rows], valid[rows], said)
        examples += _examples(questions, predicted, drawn)
        progress(questions.numbers.stop)
    return Evaluation(
        arms=tuple(arms), step_s=step_s, errors=sums.result(), probe=probe.result(), probe_note=note,
        gates=gate_levels(policy.expert), examples=tuple(examples), episodes=len({p.episode for p in places}),
        observations=len(places), seed=settings.seed)


def _why_no_probe(own: Collection[str], pool: Collection[str], settings: EvaluationSettings) -> str:
    if not settings.probed:
        return 'not asked for'
    if settings.noise_scale == 0.0:
        return 'plans that start from no noise have no noise floor to compare with'
    stuck = [text for text in sorted(own) if not set(pool) - {text}]
    if stuck:
        return (f'there is no instruction other than {stuck[0]!r} to swap in; add episodes with other ones, '
                'or give some (--swap-with)')
    return ''


def _examples(questions: Questions, predicted: torch.Tensor, drawn: set[int]) -> list[Example]:
    return [Example(sample=sample, predicted=predicted[row].numpy())
            for row, sample in enumerate(questions.samples) if questions.numbers[row] in drawn]


def _spread(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` of ``count`` numbers, evenly apart."""
    wanted = min(count, wanted)
    return [int((index + 0.5) * count / wanted) for index in range(wanted)]
