"""A feed whose passes carry the VLM's features, from a cache that fills itself on the way."""

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from apt_training.train.feature_cache import FeatureCache
from apt_training.train.feed import Feed
from apt_training.train.objective import Work

log = logging.getLogger(__name__)
REPORT_EVERY_S = 10.0


class CachedFeed:
    """Implements :class:`~apt_training.train.feed.Feed` around another one."""

    def __init__(self, feed: Feed, cache: FeatureCache) -> None:
        self._feed, self._cache = feed, cache

    def next(self) -> Work:
        """See :class:`~apt_training.train.feed.Feed`."""
        work = self._feed.next()
        return replace(work, features=self._cache.features(work.batch.images, work.sources))

    def state(self) -> dict[str, Any]:
        """See :class:`~apt_training.train.feed.Feed`."""
        return self._feed.state()

    def resume(self, state: Mapping[str, Any]) -> None:
        """See :class:`~apt_training.train.feed.Feed`."""
        self._feed.resume(state)

    def close(self) -> None:
        """See :class:`~apt_training.train.feed.Feed`."""
        self._feed.close()


def fill_cache(works: Iterable[Work], cache: FeatureCache, *, total: int) -> None:
    """Run the VLM over every sample that is not there yet; ``total`` is only told."""
    done, told = 0, time.monotonic()
    for work in works:
        cache.features(work.batch.images, work.sources)
        done += len(work.sources)
        if time.monotonic() - told > REPORT_EVERY_S:
            told = time.monotonic()
            log.info('feature cache: %d of %d samples, %d of them new', done, total, cache.counts.misses)
    log.info('feature cache: %d samples, %d of them new', done, cache.counts.misses)
