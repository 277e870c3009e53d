"""Episodes as the trainer's feed: opens what the command line names, puts the feature cache in between.

What a mixture is and how it is loaded is :mod:`apt_training.data`'s.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from apt_policy.core.contract import RobotContract
from apt_policy.model.policy import Policy
from apt_training.data.augment import NO_AUGMENTATION, Augmentation
from apt_training.data.collate import HostBatch, gather
from apt_training.data.dataset import DatasetMismatchError
from apt_training.data.loader import LoaderError, MixtureLoader
from apt_training.data.locations import Locations
from apt_training.data.mixture import Mixture
from apt_training.data.open import Training, open_mixture, parse_source
from apt_training.train.cached_feed import CachedFeed, fill_cache
from apt_training.train.config import ConfigError, TrainConfig
from apt_training.train.feature_cache import FeatureCache
from apt_training.train.feed import Feed, FeedError
from apt_training.train.flags import TrainArguments
from apt_training.train.objective import Work
from apt_training.train.saving import SaveError, require_space
from apt_training.train.stage_run import OpenFeed
from apt_training.train.world import World

log = logging.getLogger(__name__)


class EpisodeFeed:
    """Implements :class:`~apt_training.train.feed.Feed` over a mixture."""

    def __init__(self, loader: MixtureLoader, device: torch.device) -> None:
        self._loader, self._device = loader, device

    def next(self) -> Work:
        """See :class:`~apt_training.train.feed.Feed`."""
        try:
            return work_of(next(self._loader), self._device)
        except LoaderError as error:
            raise FeedError(str(error)) from error

    def state(self) -> dict[str, Any]:
        """See :class:`~apt_training.train.feed.Feed`."""
        return self._loader.state_dict()

    def resume(self, state: Mapping[str, Any]) -> None:
        """See :class:`~apt_training.train.feed.Feed`."""
        try:
            self._loader.load_state_dict(state)
        except (ValueError, KeyError) as error:
            raise FeedError(f'{error}; give the --data that the run was begun with, or another name') from error

    def close(self) -> None:
        """See :class:`~apt_training.train.feed.Feed`."""
        self._loader.close()


def work_of(host: HostBatch, device: torch.device) -> Work:
    """A loaded batch on the device."""
    return Work(batch=host.to(device, non_blocking=True), sources=host.sources)


def open_data(request: TrainArguments, config: TrainConfig, contract: RobotContract) -> Mixture:
    """The mixture that the command line names.

    Raises:
        ConfigError: it names none, or episodes of another robot than the contract's.
        ValueError: a dataset is not here, or holds files that cannot be used.
    """
    if not request.data:
        raise ConfigError('no data; give --data with datasets or folders of episodes')
    cached = request.feature_cache is not None
    training = Training(augmentation=Augmentation() if config.augment else NO_AUGMENTATION,
                        shuffle_cameras=config.augment and not cached)
    locations = None if request.locations is None else Locations(request.locations)
    try:
        return open_mixture([parse_source(text) for text in request.data], seed=config.seed, contract=contract,
                            locations=locations, training=training)
    except DatasetMismatchError as error:
        raise ConfigError(f'{error}\n--contract is {request.contract}') from error


def feed_of_episodes(request: TrainArguments, contract: RobotContract, mixture: Mixture) -> OpenFeed:
    """Return what makes the feed of a stage out of its data, once its policy is there."""
    def open_feed(config: TrainConfig, world: World, policy: Policy) -> Feed:
        loader = MixtureLoader(
            mixture, config.batch, rank=world.rank, world=world.size, workers=config.workers,
            timeout_s=config.loader_timeout_s if config.workers else 0.0,
            pin_memory=world.device.type == 'cuda' and config.workers > 0)
        feed = EpisodeFeed(loader, world.device)
        if request.feature_cache is None:
            return feed
        cache = FeatureCache(request.feature_cache, policy.vlm, config.stage)
        _announce(request, config, contract, mixture, cache, world)
        if request.fill_feature_cache:
            works = every_frame(mixture, config.batch, world)
            fill_cache(works, cache, total=frames_of(mixture) // world.size)
            world.meet()
        return CachedFeed(feed, cache)

    return open_feed


def every_frame(mixture: Mixture, batch: int, world: World) -> Iterator[Work]:
    """Every frame of every episode once, as it is drawn without augmentation; this process's share."""
    samples = []
    for part in mixture.parts:
        for episode in range(world.rank, len(part.dataset), world.size):
            for frame in range(len(part.dataset.episode(episode))):
                samples.append(part.dataset.at(episode, frame))
                if len(samples) == batch:
                    yield work_of(gather(samples), world.device)
                    samples = []
    if samples:
        yield work_of(gather(samples), world.device)


def frames_of(mixture: Mixture) -> int:
    """Frames of all episodes."""
    return sum(len(part.dataset.episode(index)) for part in mixture.parts for index in range(len(part.dataset)))


def _announce(request: TrainArguments, config: TrainConfig, contract: RobotContract, mixture: Mixture,
              cache: FeatureCache, world: World) -> None:
    """Say how large the cache may grow, before it does."""
    if not world.leads or request.feature_cache is None:
        return
    each = cache.bytes_per_sample(cameras=len(contract.cameras), side=contract.image_size)
    frames = frames_of(mixture)
    log.info('feature cache in %s: %.2f MB a frame, %.1f GB for all %d frames', request.feature_cache, each / 1e6,
             each * frames / 1e9, frames)
    try:
        require_space(request.feature_cache, each * frames)
    except SaveError as error:
        log.warning('the feature cache may not fit: %s', error)
