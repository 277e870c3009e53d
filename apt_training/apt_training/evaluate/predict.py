"""Predictions of a policy for frames of episodes, the same for the same seed.

The noise of an observation depends on the seed and on the observation's number alone, so
neither batch size nor device changes what is drawn. What predictions are compared with is
others' business.

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
from apt_training.data.collate import gather
from apt_training.data.dataset import EpisodeDataset
from apt_training.data.sample import Sample
from apt_training.episodes.episode import EpisodeError


@dataclass(frozen=True, kw_only=True)
class Place:
    """One frame of one episode of a dataset."""

    episode: int
    frame: int


class Places(Dataset[Sample | EpisodeError]):
    """The samples of some places, by their number; an error in place of one that cannot be read.

    Raised in a loading process, its message would be a traceback by the time that it arrives.
    """

    def __init__(self, dataset: EpisodeDataset, places: Sequence[Place]) -> None:
        self._dataset, self._places = dataset, list(places)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample | EpisodeError:
        place = self._places[index]
        try:
            return self._dataset.at(place.episode, place.frame)
        except EpisodeError as error:
            return error


@dataclass(frozen=True, kw_only=True, eq=False)
class Questions:
    """A batch, on the model's device."""

    numbers: range
    """Of its observations."""
    batch: TrainingBatch
    samples: tuple[Sample, ...]
    """(B,) what the batch was made of."""


class Predictor:
    """Draws samples from a policy, which is put into evaluation mode."""

    def __init__(self, policy: Policy, *, samples: int, seed: int, denoising_steps: int | None = None,
                 noise_scale: float = 1.0) -> None:
        self._policy = policy.eval()
        self._sampler = policy.sampler(denoising_steps, noise_scale=noise_scale)
        self._samples, self._seed = samples, seed

    @torch.inference_mode()
    def __call__(self, batch: TrainingBatch, numbers: Sequence[int]) -> Tensor:
        """(B, K, T, A, 17) future states in the world, float64 on the CPU.

        Args:
            batch: on the policy's device.
            numbers: (B,) of its observations.
        """
        count, horizon, arms, _ = batch.future.shape
        noise = torch.cat([self._noise(number, arms, horizon) for number in numbers])
        states = predict_states(self._sampler, self._policy.vlm(batch.images), batch.robot,
                                noise.to(batch.future.device))
        return states.unflatten(0, (count, self._samples)).double().cpu()

    def _noise(self, number: int, arms: int, horizon: int) -> Tensor:
        """(K, A, T, 10) for one observation."""
        random = np.random.default_rng([self._seed, number])
        return torch.from_numpy(random.standard_normal((self._samples, arms, horizon, ACTION_SIZE), np.float32))


def picked(batch: TrainingBatch, rows: Sequence[int], prompts: Sequence[str]) -> TrainingBatch:
    """Some rows of a batch, with other instructions."""
    def tensors(part: Any) -> dict[str, Tensor]:
        return {field.name: value[list(rows)] for field in fields(part)
                if isinstance(value := getattr(part, field.name), Tensor)}
    return TrainingBatch(images=replace(batch.images, **tensors(batch.images), prompts=tuple(prompts)),
                         robot=replace(batch.robot, **tensors(batch.robot)), future=batch.future[list(rows)])


def choose_places(dataset: EpisodeDataset, per_episode: int) -> list[Place]:
    """At most ``per_episode`` frames of every episode, evenly apart, away from both ends.

    Raises:
        EpisodeError: an episode cannot be read.
    """
    places = []
    for episode in range(len(dataset)):
        frames = len(dataset.episode(episode))
        count = min(per_episode, frames)
        middles = (np.arange(count) + 0.5) * frames / count
        places += [Place(episode=episode, frame=int(frame)) for frame in middles]
    return places


def ask(dataset: EpisodeDataset, places: Sequence[Place], *, device: torch.device, batch: int,
        workers: int = 0) -> Iterator[Questions]:
    """The places in batches, in their order.

    Raises:
        EpisodeError: an episode cannot be read.
    """
    loader = DataLoader(Places(dataset, places), batch_size=batch, num_workers=workers, collate_fn=tuple)
    first = 0
    for answers in loader:
        samples = tuple(_good(answer) for answer in answers)
        yield Questions(numbers=range(first, first + len(samples)), samples=samples,
                        batch=gather(samples).to(device))
        first += len(samples)


def _good(answer: Sample | EpisodeError) -> Sample:
    if isinstance(answer, EpisodeError):
        raise answer
    return answer
