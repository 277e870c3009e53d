"""Camera images of one observation in memory shared by two processes.

The pixels are copied into the shared block and out of it; everything else of an observation
is small enough to be pickled. The writer must wait until the reader has taken the last ones.
It knows nothing of planners or of how the rest travels.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from apt_policy.core.sample import Observation, View

_RGB = 3


def block_size(cameras: int, image_size: int) -> int:
    """Bytes that ``cameras`` square images [px] and their masks take."""
    return cameras * image_size * image_size * (_RGB + 1)


class SharedFrames:
    """The images of one observation, in a block that both processes map."""

    def __init__(self, block: Any, cameras: int, image_size: int) -> None:
        """``block`` offers the buffer protocol and has :func:`block_size` bytes."""
        # One after the other, so that each is one contiguous copy.
        images, masks = np.split(np.frombuffer(block, dtype=np.uint8), [cameras * image_size**2 * _RGB])
        self._images = images.reshape(cameras, image_size, image_size, _RGB)
        self._masks = masks.reshape(cameras, image_size, image_size)

    def store(self, observation: Observation) -> Observation:
        """Copy the images in; returns the observation without them.

        Raises:
            ValueError: more views, or another image size, than the block is made for.
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
        """The inverse of :meth:`store`: the observation with copies of its images."""
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
