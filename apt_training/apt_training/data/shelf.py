"""Episodes at hand: a few with their files open, more with what was read of them.

To open a file and read its small arrays costs a sample several times what its pictures do, and an open file of HDF5
takes 2 MB. So of an episode that was used some time ago only the file is closed.
"""

from collections import OrderedDict
from collections.abc import Callable

from apt_training.episodes.read import Episode

OPEN_FILES = 32
REMEMBERED_BYTES = 1 << 27
"""Of a shelf's episodes whose files are closed; the longest unused are forgotten first."""


class Shelf:
    """Of one process and dataset, by number."""

    def __init__(self) -> None:
        self._open: OrderedDict[int, Episode] = OrderedDict()
        self._resting: OrderedDict[int, Episode] = OrderedDict()
        self._bytes = 0

    def take(self, index: int, make: Callable[[], Episode]) -> Episode:
        """The episode, made if it is not here."""
        if index not in self._open:
            # An episode's truth is its length, which would have to be read.
            woken = self._woken(index)
            self._open[index] = make() if woken is None else woken
            if len(self._open) > OPEN_FILES:
                self._rest(*self._open.popitem(last=False))
        self._open.move_to_end(index)
        return self._open[index]

    def clear(self) -> None:
        """Close every file and forget what was read."""
        for episodes in (self._open, self._resting):
            while episodes:
                episodes.popitem()[1].close()
        self._bytes = 0

    def _woken(self, index: int) -> Episode | None:
        episode = self._resting.pop(index, None)
        if episode is not None:
            self._bytes -= episode.nbytes
        return episode

    def _rest(self, index: int, episode: Episode) -> None:
        episode.close_file()
        self._resting[index] = episode
        self._bytes += episode.nbytes
        while self._bytes > REMEMBERED_BYTES:
            oldest = self._resting.popitem(last=False)[1]
            self._bytes -= oldest.nbytes
            oldest.close()
