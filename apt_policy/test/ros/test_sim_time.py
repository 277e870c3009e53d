"""Under use_sim_time the control timer follows /clock, and the watchdogs do not."""

import time

import pytest
from rosgraph_msgs.msg import Clock

from apt_policy.core.sample import HoldReason
from apt_policy.ros.stamps import from_time, to_time

PERIOD_S = 0.005


class Simulation:
    """Publishes /clock at a pace."""

    def __init__(self, node):
        self.now_ns = 1_000_000_000_000
        self.pace = 1.0
        self._publisher = node.create_publisher(Clock, '/clock', 1)
        node.create_timer(PERIOD_S, self._advance, clock=node._clock)

    def _advance(self):
        if self.pace > 0:
            self.now_ns += round(self.pace * PERIOD_S * 1e9)
            self._publisher.publish(Clock(clock=to_time(self.now_ns)))


@pytest.fixture(scope='module')
def opened(open_bench):
    bench = open_bench('sim', use_sim_time=True)
    return bench, Simulation(bench.listener.node)


@pytest.fixture
def simulated(opened):
    bench, simulation = opened
    simulation.pace = 1.0
    bench.mend()
    return bench, simulation


def test_targets_are_due_on_the_simulated_clock(simulated):
    bench, simulation = simulated
    assert abs(from_time(bench.listener.targets[-1].header.stamp) - simulation.now_ns) < 1e9


def test_a_slow_simulator_gets_as_many_targets_per_simulated_second(simulated):
    bench, simulation = simulated
    simulation.pace = 0.2
    time.sleep(0.3)
    first = bench.listener.targets[-1]
    time.sleep(3.0)
    last = bench.listener.targets[-1]
    elapsed_s = (from_time(last.header.stamp) - from_time(first.header.stamp)) / 1e9
    assert elapsed_s < 1.2, 'simulated time passes at a fifth of the pace'
    # A timer on the wall's clock would give 250; a busy machine misses some.
    assert 30.0 < (last.sequence - first.sequence) / elapsed_s < 60.0


def test_a_clock_that_stops_holds_the_arms_and_is_named(simulated):
    bench, simulation = simulated
    simulation.pace = 0.0
    bench.held(HoldReason.STALE_STREAM, 'is /clock published?')
    simulation.pace = 1.0
    bench.flow()


def test_a_clock_that_jumps_back_holds_the_arms_until_a_person_enables(simulated):
    bench, simulation = simulated
    simulation.now_ns -= 500_000_000_000
    bench.held(HoldReason.CLOCK_JUMP, 'back')
    assert 1 <= bench.said('hold CLOCK_JUMP') <= 3
    assert bench.enable().success
    bench.flow()
    assert from_time(bench.listener.targets[-1].header.stamp) <= simulation.now_ns
