"""Programs of this package as processes of their own, on a DDS domain that nobody else uses."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import domain_coordinator
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from apt_policy.core.contract import load_contract
from apt_policy.ros.qos import profile

CONTRACT = Path(__file__).parents[2] / 'apt_bringup' / 'config' / 'aloha_sim.yaml'
SMALL_CONTRACT = CONTRACT.with_name('aloha_small.yaml')
HANG_S = 30.0
# Tests that talk over DDS have a domain to do it on.
LIVE = {'domain', 'isolated'}


def pytest_collection_modifyitems(items):
    for item in items:
        if LIVE & set(item.fixturenames):
            item.add_marker(pytest.mark.live)


class Program:
    """A running node; what it logs is in :meth:`log`."""

    def __init__(self, module, domain, folder, parameters):
        environment = {**os.environ, 'ROS_DOMAIN_ID': str(domain), 'PYTHONUNBUFFERED': '1',
                       'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
        pairs = [part for name, value in parameters.items() for part in ('-p', f'{name}:={value}')]
        self._log = folder / f'{module}.{time.monotonic_ns()}.log'
        with self._log.open('w') as log:
            self._process = subprocess.Popen([sys.executable, '-m', module, '--ros-args', *pairs],
                                             env=environment, stdout=log, stderr=subprocess.STDOUT)

    def log(self):
        return self._log.read_text()

    def stop(self, number=signal.SIGINT):
        """Exit status after a signal."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self.wait()

    def wait(self):
        try:
            return self._process.wait(HANG_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise


class Ear:
    """A node of the test's own that keeps all that it hears."""

    def __init__(self, domain):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = Node('ear', context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)

    def hear(self, kind, topic, role):
        """The list that this topic's messages are added to."""
        heard = []
        self.node.create_subscription(kind, topic, heard.append, profile(role))
        return heard

    def spin(self, seconds):
        self.until(lambda: False, seconds)

    def until(self, condition, seconds=HANG_S):
        """Whether the condition came true in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            self._executor.spin_once(timeout_sec=0.05)
        return True

    def call(self, kind, name, request):
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(HANG_S)
        future = client.call_async(request)
        assert self.until(future.done)
        return future.result()

    def close(self):
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture(scope='session')
def contract():
    return load_contract(CONTRACT)


@pytest.fixture(scope='session')
def small():
    """The robot of trials."""
    return load_contract(SMALL_CONTRACT)


@pytest.fixture(scope='module')
def domain(monkeypatch_module):
    monkeypatch_module.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    with domain_coordinator.domain_id() as number:
        yield number


@pytest.fixture(scope='module')
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope='module')
def run_program(domain, tmp_path_factory):
    """Starts a module with the simulated robot's contract and more parameters; ends it after the tests."""
    programs, folder = [], tmp_path_factory.mktemp('logs')

    def launch(module, **parameters):
        program = Program(module, domain, folder, {'contract': CONTRACT, **parameters})
        programs.append(program)
        return program

    yield launch
    for program in programs:
        program.stop()


@pytest.fixture(scope='module')
def ear(domain):
    ear = Ear(domain)
    yield ear
    ear.close()
