"""Workers of the pool's tests, in a module that the processes can import."""

import os
import signal
import sys
import time
from pathlib import Path

from apt_training.bulk.process import report_progress


class Squarer:
    """Worker that squares, and is killed a number of times by one job."""

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
    """Worker that cannot be built."""

    def __init__(self):
        raise OSError(28, 'No space left on device')


def quarrel(number):
    raise ValueError(f'{number} is not to my liking')


def complainer():
    return quarrel


def surroundings():
    return lambda number: {name: os.environ.get(name) for name in ('OMP_NUM_THREADS', 'LP_NUM_THREADS', 'MOOD')}


class Sleeper:
    """Worker that does job 0 at once, and sleeps with a half-written file in all others."""

    def __init__(self, folder, deaf=False):
        self._folder = Path(folder)
        if deaf:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def __call__(self, number):
        if number == 0:
            return 0
        half = self._folder / f'{number}.half'
        half.touch()
        report_progress('asleep')
        try:
            time.sleep(600.0)
        finally:
            half.unlink()

    def close(self):
        (self._folder / f'{os.getpid()}.closed').touch()


class Leaver:
    """Worker whose process two jobs end."""

    def __call__(self, number):
        if number == 1:
            sys.exit(0)
        if number == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        return number


class Stillborn:
    """Worker that kills the process that builds it."""

    def __init__(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Reporter:
    """Worker that reports progress."""

    def __call__(self, number):
        report_progress('begun')
        report_progress('ended')
        return number
