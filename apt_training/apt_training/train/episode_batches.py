"""Micro-batches of episodes: opens the datasets that the command line names, and puts the feature cache in between.

Mixtures and their loader are in :mod:`apt_training.data`.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from apt_policy.core.contract import RobotContract
from apt_policy.model.policy import Policy
from apt_training.data.augment import NO_AUGMENTATION, Augmentation
from apt_training.data.collate import HostBatch, collate
from apt_training.data.dataset import DatasetMismatchError
from apt_training.data.loader import DataLoadingError, MixtureLoader
from apt_training.data.locations import Locations
from apt_training.data.mixture import Mixture
from apt_training.data.open_datasets import SamplingConfig, open_mixture, parse_data_source
from apt_training.train.batch_source import BatchSource
from apt_training.train.config import ConfigError, TrainConfig
from apt_training.train.distributed import DistributedContext
from apt_training.train.feature_cache import FeatureCache
from apt_training.train.flags import TrainArguments
from apt_training.train.objective import MicroBatch
from apt_training.train.run_folder import SaveError, check_free_space
from apt_training.train.stage_run import BatchSourceFactory

log = logging.getLogger(__name__)

LOG_INTERVAL_S = 10.0
"""Time between two progress messages while the feature cache is filled [s]."""


class EpisodeBatches:
    """Batch source over a mixture of episode datasets."""

    def __init__(self, loader: MixtureLoader, device: torch.device) -> None:
        self._loader, self._device = loader, device

    def next_batch(self) -> MicroBatch:
        """Return the next micro-batch on the device; see :class:`BatchSource`."""
        return to_micro_batch(next(self._loader), self._device)

    def state_dict(self) -> dict[str, Any]:
        """Return the loader's position; see :class:`BatchSource`."""
        return self._loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the loader's position; see :class:`BatchSource`."""
        try:
            self._loader.load_state_dict(state)
        except (ValueError, KeyError) as error:
            raise DataLoadingError(f'{error}; give the --data that the run was started with, or another run name'
                                   ) from error

    def close(self) -> None:
        """Stop the loading processes."""
        self._loader.close()


class CachedFeatureBatches:
    """Batch source whose micro-batches carry the VLM's features, read from a cache that is filled on demand."""

    def __init__(self, batches: BatchSource, cache: FeatureCache) -> None:
        self._batches, self._cache = batches, cache

    def next_batch(self) -> MicroBatch:
        """Return the next micro-batch with its features; see :class:`BatchSource`."""
        micro_batch = self._batches.next_batch()
        return replace(micro_batch, features=self._cache.load_or_compute(micro_batch.batch.images, micro_batch.sources))

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the underlying source."""
        return self._batches.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a position of the underlying source."""
        self._batches.load_state_dict(state)

    def close(self) -> None:
        """Close the underlying source."""
        self._batches.close()


def fill_cache(micro_batches: Iterable[MicroBatch], cache: FeatureCache, *, total: int) -> None:
    """Run the VLM over every sample that the cache lacks.

    Args:
        micro_batches: samples of this rank.
        cache: cache to fill.
        total: number of samples, for progress messages only.
    """
    done, logged = 0, time.monotonic()
    for micro_batch in micro_batches:
        cache.load_or_compute(micro_batch.batch.images, micro_batch.sources)
        done += len(micro_batch.sources)
        if time.monotonic() - logged > LOG_INTERVAL_S:
            logged = time.monotonic()
            log.info('Feature cache: %d of %d samples, %d of them new', done, total, cache.counts.misses)
    log.info('Feature cache: %d samples, %d of them new', done, cache.counts.misses)


def to_micro_batch(host: HostBatch, device: torch.device) -> MicroBatch:
    """Copy a loaded batch to the device."""
    return MicroBatch(batch=host.to(device, non_blocking=True), sources=host.sources)


def open_training_data(arguments: TrainArguments, config: TrainConfig, contract: RobotContract) -> Mixture:
    """Open the mixture that the command line names.

    Raises:
        ConfigError: no data is named, or the episodes belong to another robot than the contract's.
        ValueError: a dataset is not on this machine, or holds files that cannot be used.
    """
    if not arguments.data:
        raise ConfigError('no data; give --data with datasets or folders of episodes')
    cached = arguments.feature_cache is not None
    sampling = SamplingConfig(augmentation=Augmentation() if config.augment else NO_AUGMENTATION,
                              shuffle_cameras=config.augment and not cached)
    locations = None if arguments.locations is None else Locations(arguments.locations)
    try:
        return open_mixture([parse_data_source(text) for text in arguments.data], seed=config.seed, contract=contract,
                            locations=locations, sampling=sampling)
    except DatasetMismatchError as error:
        raise ConfigError(f'{error}\n--contract is {arguments.contract}') from error


def episode_batches_factory(arguments: TrainArguments, contract: RobotContract, mixture: Mixture) -> BatchSourceFactory:
    """Return a function that opens the batch source of a stage once its policy exists."""
    def open_batches(config: TrainConfig, distributed: DistributedContext, policy: Policy) -> BatchSource:
        loader = MixtureLoader(
            mixture, config.batch_size, rank=distributed.rank, world_size=distributed.world_size,
            workers=config.workers, timeout_s=config.loader_timeout_s if config.workers else 0.0,
            pin_memory=distributed.device.type == 'cuda' and config.workers > 0)
        batches = EpisodeBatches(loader, distributed.device)
        if arguments.feature_cache is None:
            return batches
        cache = FeatureCache(arguments.feature_cache, policy.vlm, config.stage)
        _log_cache_size(arguments, contract, mixture, cache, distributed)
        if arguments.fill_feature_cache:
            micro_batches = iterate_all_frames(mixture, config.batch_size, distributed)
            fill_cache(micro_batches, cache, total=count_frames(mixture) // distributed.world_size)
            distributed.barrier()
        return CachedFeatureBatches(batches, cache)

    return open_batches


def iterate_all_frames(mixture: Mixture, batch_size: int, distributed: DistributedContext) -> Iterator[MicroBatch]:
    """Yield every frame of this rank's episodes once, without augmentation."""
    samples = []
    for component in mixture.components:
        for episode in range(distributed.rank, len(component.dataset), distributed.world_size):
            for frame in range(len(component.dataset.episode(episode))):
                samples.append(component.dataset.sample_at(episode, frame))
                if len(samples) == batch_size:
                    yield to_micro_batch(collate(samples), distributed.device)
                    samples = []
    if samples:
        yield to_micro_batch(collate(samples), distributed.device)


def count_frames(mixture: Mixture) -> int:
    """Return the number of frames of all episodes."""
    return sum(len(component.dataset.episode(index)) for component in mixture.components
               for index in range(len(component.dataset)))


def _log_cache_size(arguments: TrainArguments, contract: RobotContract, mixture: Mixture, cache: FeatureCache,
                    distributed: DistributedContext) -> None:
    """Log how large the cache may become, before it is filled."""
    if not distributed.is_main_process or arguments.feature_cache is None:
        return
    per_frame = cache.bytes_per_sample(cameras=len(contract.cameras), side=contract.image_size)
    frames = count_frames(mixture)
    log.info('Feature cache in %s: %.2f MB per frame, %.1f GB for all %d frames', arguments.feature_cache,
             per_frame / 1e6, per_frame * frames / 1e9, frames)
    try:
        check_free_space(arguments.feature_cache, per_frame * frames)
    except SaveError as error:
        log.warning('The feature cache may not fit: %s', error)
