"""Fixtures that write bags, and read them back with ``rosbags``."""

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from apt_policy.core.cdr import encode_string
from apt_recorder.bag_writer import BagConfig, BagWriter

pytest_plugins = ('live_programs',)

CONTRACT = Path(__file__).parents[2] / 'apt_bringup' / 'config' / 'aloha_sim.yaml'
HANG_S = 60.0


@pytest.fixture
def folder(tmp_path):
    return tmp_path / 'bag'


@pytest.fixture
def new_bag(folder):
    """Return a function that makes a bag with one topic of texts."""
    def make(**settings):
        bag = BagWriter(folder, BagConfig(**settings))
        bag.add_topic('/text', 'std_msgs/msg/String', [])
        return bag
    return make


@pytest.fixture(scope='session')
def texts():
    """Return a function that reads a bag: (topic, stamp, text) of every message, in order."""
    def read(path: Path):
        with AnyReader([path]) as reader:
            return [(connection.topic, stamp, reader.deserialize(raw, connection.msgtype).data)
                    for connection, stamp, raw in reader.messages()]
    return read


@pytest.fixture
def fill():
    """Return a function that writes numbered texts, one per second, each of about ``size`` incompressible bytes."""
    def write(bag, count, *, size=0, first=0):
        random = np.random.default_rng(0)
        for number in range(first, first + count):
            text = f'{number} ' + random.bytes(size // 2).hex()
            bag.write('/text', number * 10**9, encode_string(text))
    return write


class Running:
    """Program on a DDS domain of its own; its output is in :attr:`said`."""

    def __init__(self, words, domain, folder, stdin=subprocess.DEVNULL, terminal=False):
        environment = {**os.environ, 'ROS_DOMAIN_ID': str(domain), 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
                       'PYTHONUNBUFFERED': '1', 'COLUMNS': '200'}
        self._log = folder / f'{time.monotonic_ns()}.log'
        with self._log.open('w') as log:
            self._process = subprocess.Popen([sys.executable, *map(str, words)], env=environment, stdin=stdin,
                                             stdout=log, stderr=subprocess.STDOUT, start_new_session=terminal,
                                             preexec_fn=_take_terminal if terminal else None)

    @property
    def said(self):
        return self._log.read_text()

    @property
    def running(self):
        return self._process.poll() is None

    def until(self, text):
        """Wait until its output contains ``text``."""
        deadline = time.monotonic() + HANG_S
        while text not in self.said:
            assert time.monotonic() < deadline and self.running, f'{text!r} was not said:\n{self.said}'
            time.sleep(0.05)

    def send(self, number):
        self._process.send_signal(number)

    def stop(self, number=signal.SIGINT):
        """Send a signal and return the exit status."""
        if self.running:
            self._process.send_signal(number)
        return self.wait()

    def wait(self):
        try:
            return self._process.wait(HANG_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(f'hangs; it said:\n{self.said}') from None


def _take_terminal():
    """Make standard input the terminal that this program is in the foreground of."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture(scope='module')
def run(domain, tmp_path_factory):
    """Return a function that starts programs, which end after the tests."""
    started, folder = [], tmp_path_factory.mktemp('programs')

    def start(*words, **options):
        started.append(Running(words, domain, folder, **options))
        return started[-1]

    yield start
    for program in started:
        program.stop()


@pytest.fixture(scope='module')
def robot(run):
    """Return a function that starts a robot that publishes every stream, unless its arguments say otherwise."""
    def start(*words):
        return run(Path(__file__).with_name('robot.py'), CONTRACT, *words)
    return start


@pytest.fixture
def record(run, folder):
    """Return a function that starts ``apt-record`` into the bag of the test; a busy machine may be slow."""
    def start(*words, **options):
        return run('-m', 'apt_recorder.main', folder, '--contract', CONTRACT, '--min-rate', 0.2, '--wait', 20,
                   *words, **options)
    return start
