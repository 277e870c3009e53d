"""Camera images of one observation in memory shared by two processes.

The pixels are copied into the shared block and out of it; the rest of an observation
is small enough to be pickled. The writer must wait until the reader has copied the last images.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from apt_policy.core.sample import Observation, View

_RGB = 3


def block_size(cameras: int, image_size: int) -> int:
    """Compute the size of ``cameras`` square images of ``image_size`` [px] and their masks [bytes]."""
    return cameras * image_size * image_size * (_RGB + 1)


class SharedFrames:
    """Images of one observation in a block that both processes map."""

    def __init__(self, block: Any, cameras: int, image_size: int) -> None:
        """Map ``block``, which supports the buffer protocol and has :func:`block_size` bytes."""
        # Images and masks are separate, so that each copy is contiguous.
        images, masks = np.split(np.frombuffer(block, dtype=np.uint8), [cameras * image_size**2 * _RGB])
        self._images = images.reshape(cameras, image_size, image_size, _RGB)
        self._masks = masks.reshape(cameras, image_size, image_size)

    def store(self, observation: Observation) -> Observation:
        """Copy the images into the block and return the observation without them.

        Raises:
            ValueError: the number of views or the image size does not fit the block.
        """
        cameras, size = self._masks.shape[:2]
        if len(observation.views) > cameras:
            raise ValueError(f'the observation has {len(observation.views)} views, the block {cameras}')
        for view in filter(None, observation.views):
            if view.rgb.shape != (size, size, 3) or view.mask.shape != (size, size):
                raise ValueError(f'a view has images {view.rgb.shape} and {view.mask.shape}; expected '
                                 f'{(size, size, 3)} and {(size, size)}')
        return _map_views(observation, self._put)

    def restore(self, observation: Observation) -> Observation:
        """Return the observation with copies of its images; the inverse of :meth:`store`."""
        return _map_views(observation, self._get)

    def _put(self, index: int, view: View) -> View:
        self._images[index] = view.rgb
        self._masks[index] = view.mask
        return replace(view, rgb=np.empty((0, 0, 3), np.uint8), mask=np.empty((0, 0), np.bool_))

    def _get(self, index: int, view: View) -> View:
        return replace(view, rgb=self._images[index].copy(), mask=self._masks[index].astype(np.bool_))


def _map_views(observation: Observation, change: Callable[[int, View], View]) -> Observation:
    views = tuple(view and change(index, view) for index, view in enumerate(observation.views))
    return replace(observation, views=views)
