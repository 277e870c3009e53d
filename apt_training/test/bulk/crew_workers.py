"""Work for processes of a crew, which have to be able to import it."""

import os
import signal
from pathlib import Path


class Squarer:
    """Squares; dies of one number, as often as a file has letters."""

    def __init__(self, folder, deadly=None, deaths=0):
        self._folder, self._deadly, self._deaths = Path(folder), deadly, deaths

    def __call__(self, number):
        tally = self._folder / 'deaths'
        died = len(tally.read_text()) if tally.exists() else 0
        if number == self._deadly and died < self._deaths:
            tally.write_text('x' * (died + 1))
            os.kill(os.getpid(), signal.SIGKILL)
        return number**2


class Unbuilt:
    """Cannot be built."""

    def __init__(self):
        raise OSError(28, 'No space left on device')


def quarrel(number):
    raise ValueError(f'{number} is not to my liking')


def complainer():
    return quarrel


def surroundings():
    return lambda number: {name: os.environ.get(name) for name in ('OMP_NUM_THREADS', 'LP_NUM_THREADS', 'MOOD')}
