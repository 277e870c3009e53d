"""Evaluation of a policy on held-out episodes: prediction errors, language probe and fusion gates.

The inputs are opened in :mod:`~apt_training.evaluate.inputs`; results are printed, plotted and written elsewhere.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from apt_policy.model.config import TAP_STRIDE, check_noise_scale
from apt_policy.model.expert import Expert
from apt_policy.model.policy import Policy
from apt_training.data.dataset import EpisodeDataset
from apt_training.data.sample import Sample
from apt_training.evaluate.metrics import (
    UNITS,
    HorizonErrorAccumulator,
    HorizonErrors,
    errors_to_dict,
    mean_over_horizon,
)
from apt_training.evaluate.predict import EvaluationBatch, FrameIndex, Predictor, load_batches, select_rows
from apt_training.evaluate.probe import ProbeAccumulator, ProbeResult, swap_instructions


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Configuration of an evaluation."""

    samples: int = 8
    """K, number of plans drawn per observation."""
    seed: int = 0
    """Seed of noise and of swapped instructions."""
    batch_size: int = 8
    """Observations per batch."""
    denoising_steps: int | None = None
    """Number of denoising steps; None: the checkpoint's."""
    noise_scale: float = 1.0
    """Scale of the initial diffusion noise, 0..1; 0 makes sampling deterministic."""
    probed: int = 64
    """Number of observations of the language probe; 0 skips the probe."""
    examples: int = 6
    """Number of observations that are kept for plots."""
    workers: int = 0
    """Loading processes; 0 loads in this process."""

    def __post_init__(self) -> None:
        for name in ('samples', 'batch_size'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} is {getattr(self, name)}; expected 1 or more')
        for name in ('seed', 'probed', 'examples', 'workers'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name} is {getattr(self, name)}; expected 0 or more')
        check_noise_scale(self.noise_scale)
        if self.probed and self.samples < 2:
            raise ValueError('samples is 1; the probe needs 2 or more to measure the noise floor; give more samples, '
                             'or skip the probe')


@dataclass(frozen=True, kw_only=True)
class GateStatistics:
    """Fusion gate after one block, over its channels, 0..1.

    A gate of 1 keeps the expert's own vision-language stream, 0 replaces it by the VLM layer's feature; an untrained
    gate is 0.5 (:mod:`apt_policy.model.fusion`).
    """

    block: int
    vlm_layer: int
    """Decoder layer of the VLM whose feature is mixed in."""
    mean: float
    spread: float
    """Standard deviation over channels."""
    least: float
    greatest: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One observation with its predictions."""

    sample: Sample
    predicted: Any
    """(K, T, A, 17) predicted states."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Results of an evaluation."""

    arms: tuple[str, ...]
    step_s: float
    """Time between two states of the horizon [s]."""
    errors: HorizonErrors
    probe: ProbeResult | None
    """Result of the language probe; None if it was skipped."""
    probe_note: str
    """Reason why the probe was skipped; empty if it ran."""
    gates: tuple[GateStatistics, ...]
    examples: tuple[Example, ...]
    episodes: int
    observations: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as plain JSON."""
        errors = self.errors
        return {
            'episodes': self.episodes, 'observations': self.observations, 'samples': errors.samples,
            'seed': self.seed, 'arms': list(self.arms), 'step_s': self.step_s, 'units': UNITS,
            'overall': {kind: mean_over_horizon(getattr(errors, kind), errors.observations)
                        for kind in ('mean', 'best', 'hold')},
            'horizon': {kind: errors_to_dict(getattr(errors, kind), self.arms) for kind in ('mean', 'best', 'hold')},
            'probe': None if self.probe is None else self.probe.to_dict(), 'probe_note': self.probe_note,
            'gates': gates_to_list(self.gates)}


def evaluate(policy: Policy, dataset: EpisodeDataset, frames: Sequence[FrameIndex], *, config: EvaluationConfig,
             arms: Sequence[str], step_s: float, others: Sequence[str] = (),
             progress: Callable[[int], None] = lambda _: None) -> Evaluation:
    """Evaluate a policy on frames of a dataset.

    Args:
        policy: policy on its device; put into evaluation mode.
        dataset: held-out episodes, all of the same arms.
        frames: frames to predict, at least one.
        config: configuration of the evaluation.
        arms: names of the arms.
        step_s: time between two states of the horizon [s].
        others: instructions to swap in; empty: those of the other episodes.
        progress: callback that receives the number of finished observations.

    Raises:
        EpisodeError: an episode cannot be read.
        ValueError: a prediction is not finite, or there are no frames.
        PromptError: the model cannot take an instruction.
    """
    predict = Predictor(policy, samples=config.samples, seed=config.seed,
                        denoising_steps=config.denoising_steps, noise_scale=config.noise_scale)
    own = {dataset.episode(index.episode).prompt(index.frame) for index in frames}
    pool = set(others) or own
    note = _why_no_probe(own, pool, config)
    errors, probe, examples = HorizonErrorAccumulator(dataset.window.horizon, len(arms)), ProbeAccumulator(), []
    kept = set(_spread(len(frames), config.examples))
    probed = set() if note else set(_spread(len(frames), config.probed))
    for batch in load_batches(dataset, frames, device=policy.vlm.device, batch_size=config.batch_size,
                              workers=config.workers):
        predicted = predict(batch.inputs, batch.numbers)
        label, valid = batch.inputs.future.cpu(), batch.inputs.robot.valid_arms.cpu()
        errors.update(predicted, label, batch.inputs.robot.history[:, -1].cpu(), valid)
        rows = [row for row, number in enumerate(batch.numbers) if number in probed]
        if rows:
            numbers = [batch.numbers[row] for row in rows]
            prompts = swap_instructions([batch.samples[row].prompt for row in rows], pool, numbers, seed=config.seed)
            swapped = predict(select_rows(batch.inputs, rows, prompts), numbers)
            probe.update(predicted[rows], swapped, label[rows], valid[rows], prompts)
        examples += _examples(batch, predicted, kept)
        progress(batch.numbers.stop)
    return Evaluation(
        arms=tuple(arms), step_s=step_s, errors=errors.compute(), probe=probe.compute(), probe_note=note,
        gates=gate_statistics(policy.expert), examples=tuple(examples),
        episodes=len({index.episode for index in frames}), observations=len(frames), seed=config.seed)


@torch.no_grad()
def gate_statistics(expert: Expert) -> tuple[GateStatistics, ...]:
    """Return the gate after each block except the last, after which nothing is mixed in."""
    stack = expert.dp_head.traj_context_attn
    gates = []
    for block in range(len(stack.blocks) - 1):
        tap = stack.tap_after(block)
        gate = torch.sigmoid(stack.gate[tap].double())
        gates.append(GateStatistics(
            block=block, vlm_layer=TAP_STRIDE * tap, mean=float(gate.mean()), spread=float(gate.std(correction=0)),
            least=float(gate.min()), greatest=float(gate.max())))
    return tuple(gates)


def gates_to_list(gates: tuple[GateStatistics, ...]) -> list[dict[str, Any]]:
    """Return the gates as plain JSON."""
    return [vars(gate).copy() for gate in gates]


def _why_no_probe(own: Collection[str], pool: Collection[str], config: EvaluationConfig) -> str:
    if not config.probed:
        return 'not requested'
    if config.noise_scale == 0.0:
        return 'without noise (--noise-scale 0) there is no noise floor to compare with'
    stuck = [text for text in sorted(own) if not set(pool) - {text}]
    if stuck:
        return (f'there is no instruction other than {stuck[0]!r} to swap in; add episodes with other instructions, '
                'or give some with --swap-with')
    return ''


def _examples(batch: EvaluationBatch, predicted: torch.Tensor, kept: set[int]) -> list[Example]:
    return [Example(sample=sample, predicted=predicted[row].numpy())
            for row, sample in enumerate(batch.samples) if batch.numbers[row] in kept]


def _spread(count: int, wanted: int) -> list[int]:
    """Return at most ``wanted`` evenly spaced numbers below ``count``."""
    wanted = min(count, wanted)
    return [int((index + 0.5) * count / wanted) for index in range(wanted)]
