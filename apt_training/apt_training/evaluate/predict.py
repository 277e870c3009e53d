"""Reproducible predictions of a policy for frames of episodes.

The noise of an observation depends only on the seed and on the observation's number, so neither batch size nor device
changes it.

Letters: B observations, K samples of each, T horizon, A arms.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from apt_policy.model.actions import ACTION_SIZE
from apt_policy.model.policy import Policy, TrainingBatch, predict_states
from apt_training.data.collate import collate
from apt_training.data.dataset import EpisodeDataset
from apt_training.data.sample import Sample
from apt_training.episodes.episode import EpisodeError


@dataclass(frozen=True, kw_only=True)
class FrameIndex:
    """Frame of an episode of a dataset, by their numbers."""

    episode: int
    frame: int


class EvaluationFrames(Dataset[Sample | EpisodeError]):
    """Dataset of the samples of given frames, or the errors of those that cannot be read.

    Errors are returned because DataLoader replaces the message of one raised in a worker by a traceback.
    """

    def __init__(self, dataset: EpisodeDataset, frames: Sequence[FrameIndex]) -> None:
        self._dataset, self._frames = dataset, list(frames)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Sample | EpisodeError:
        frame = self._frames[index]
        try:
            return self._dataset.sample_at(frame.episode, frame.frame)
        except EpisodeError as error:
            return error


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationBatch:
    """Batch of observations on the model's device."""

    numbers: range
    """Numbers of the observations."""
    inputs: TrainingBatch
    """Model inputs on the device."""
    samples: tuple[Sample, ...]
    """(B,) samples of the batch."""


class Predictor:
    """Sampler of a policy, which is put into evaluation mode."""

    def __init__(self, policy: Policy, *, samples: int, seed: int, denoising_steps: int | None = None,
                 noise_scale: float = 1.0) -> None:
        self._policy = policy.eval()
        self._sampler = policy.sampler(denoising_steps, noise_scale=noise_scale)
        self._samples, self._seed = samples, seed

    @torch.inference_mode()
    def __call__(self, batch: TrainingBatch, numbers: Sequence[int]) -> Tensor:
        """Predict future states in the world frame.

        Args:
            batch: batch on the policy's device.
            numbers: (B,) numbers of the observations, which decide the noise.

        Returns:
            (B, K, T, A, 17) states, float64 on the CPU.
        """
        count, horizon, arms, _ = batch.future.shape
        noise = torch.cat([self._noise(number, arms, horizon) for number in numbers])
        states = predict_states(self._sampler, self._policy.vlm(batch.images), batch.robot,
                                noise.to(batch.future.device))
        return states.unflatten(0, (count, self._samples)).double().cpu()

    def _noise(self, number: int, arms: int, horizon: int) -> Tensor:
        """Return the initial noise (K, A, T, 10) of one observation."""
        random = np.random.default_rng([self._seed, number])
        return torch.from_numpy(random.standard_normal((self._samples, arms, horizon, ACTION_SIZE), np.float32))


def select_rows(batch: TrainingBatch, rows: Sequence[int], prompts: Sequence[str]) -> TrainingBatch:
    """Return the given rows of a batch with other instructions."""
    def tensors(part: Any) -> dict[str, Tensor]:
        return {field.name: value[list(rows)] for field in fields(part)
                if isinstance(value := getattr(part, field.name), Tensor)}
    return TrainingBatch(images=replace(batch.images, **tensors(batch.images), prompts=tuple(prompts)),
                         robot=replace(batch.robot, **tensors(batch.robot)), future=batch.future[list(rows)])


def choose_frames(dataset: EpisodeDataset, per_episode: int) -> list[FrameIndex]:
    """Choose at most ``per_episode`` frames of every episode, evenly spaced and away from both ends.

    Raises:
        EpisodeError: an episode cannot be read.
    """
    frames = []
    for episode in range(len(dataset)):
        length = len(dataset.episode(episode))
        count = min(per_episode, length)
        middles = (np.arange(count) + 0.5) * length / count
        frames += [FrameIndex(episode=episode, frame=int(frame)) for frame in middles]
    return frames


def load_batches(dataset: EpisodeDataset, frames: Sequence[FrameIndex], *, device: torch.device, batch_size: int,
                 workers: int = 0) -> Iterator[EvaluationBatch]:
    """Load frames in batches, in their order.

    Args:
        dataset: episodes.
        frames: frames to load.
        device: device of the batches.
        batch_size: observations per batch.
        workers: loading processes; 0: load in this process.

    Raises:
        EpisodeError: an episode cannot be read.
    """
    loader = DataLoader(EvaluationFrames(dataset, frames), batch_size=batch_size, num_workers=workers, collate_fn=tuple)
    first = 0
    for results in loader:
        samples = tuple(_raise_errors(result) for result in results)
        yield EvaluationBatch(numbers=range(first, first + len(samples)), samples=samples,
                              inputs=collate(samples).to(device))
        first += len(samples)


def _raise_errors(result: Sample | EpisodeError) -> Sample:
    if isinstance(result, EpisodeError):
        raise result
    return result
