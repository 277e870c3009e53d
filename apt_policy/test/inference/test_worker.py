"""What both workers promise, run on both, with real threads and real processes."""

import functools
import time

import numpy as np
import pytest

from apt_policy.inference.hover_planner import Fault, HoverPlanner
from apt_policy.inference.ports import PlanFailure, PlannedChunk, PlanRequest
from apt_policy.inference.worker.process_worker import start_worker
from apt_policy.inference.worker.worker import WorkerConfig, WorkerError, WorkerKind, WorkerState


def hover(**arguments):
    return functools.partial(HoverPlanner, horizon=4, **arguments)


def next_outcome(worker, limit_s=20.0):
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        if (outcome := worker.poll()) is not None:
            return outcome
        time.sleep(0.002)
    raise AssertionError('the worker never answered')


def until(condition, limit_s=20.0):
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, 'it never happened'
        time.sleep(0.002)


@pytest.fixture(params=WorkerKind)
def started(request):
    workers = []

    def start(factory, **settings):
        workers.append(start_worker(request.param, factory, cameras=2, image_size=16,
                                    config=WorkerConfig(**settings)))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


def test_a_chunk_answers_its_request(started, make):
    worker = started(hover())
    worker.warm_up()
    assert worker.state is WorkerState.IDLE and worker.poll() is None
    request = PlanRequest(observation=make.observation(stamp_ns=7, seed=1), epoch=3)
    worker.submit(request)
    outcome = next_outcome(worker)
    assert isinstance(outcome, PlannedChunk) and outcome.request is request
    direct = HoverPlanner(horizon=4).plan(request.observation, epoch=3, prefix=None)
    assert (outcome.chunk.stamp_ns, outcome.chunk.epoch, outcome.chunk.prompt) == (7, 3, 'wave')
    np.testing.assert_array_equal(outcome.chunk.world_from_ee, direct.world_from_ee)
    assert worker.state is WorkerState.IDLE and worker.poll() is None


def test_the_newest_observation_wins_and_none_queues(started, make):
    worker = started(hover(delay_s=0.5))
    worker.warm_up()
    for stamp_ns in range(1, 8):
        worker.submit(PlanRequest(observation=make.observation(stamp_ns=stamp_ns), epoch=0))
        if stamp_ns == 1:
            until(lambda: worker.state is WorkerState.BUSY)
            time.sleep(0.02)
    planned = [next_outcome(worker).chunk.stamp_ns, next_outcome(worker).chunk.stamp_ns]
    assert planned == [1, 7]
    time.sleep(0.7)
    assert worker.poll() is None and worker.state is WorkerState.IDLE


def test_a_request_waits_for_a_planner_that_is_still_starting(started, make):
    worker = started(hover())
    worker.submit(PlanRequest(observation=make.observation(stamp_ns=5), epoch=0))
    assert next_outcome(worker).chunk.stamp_ns == 5


def test_a_planner_that_raises_is_reported_with_its_words_and_goes_on(started, make):
    worker = started(hover(fault=Fault.RAISES, good_plans=1))
    worker.warm_up()
    request = PlanRequest(observation=make.observation(), epoch=0)
    worker.submit(request)
    assert isinstance(next_outcome(worker), PlannedChunk)
    for _ in range(2):
        worker.submit(request)
        failure = next_outcome(worker)
        assert isinstance(failure, PlanFailure)
        assert failure.message == 'RuntimeError: this planner was made to fail'
        assert '_simulate_fault' in failure.trace
        assert worker.state is WorkerState.IDLE



@pytest.mark.parametrize(('factory', 'words'), [
    (hover(fault=Fault.RAISES_AT_START), 'RuntimeError: this planner was made to fail at its start'),
    (functools.partial(HoverPlanner, radius=1), 'unexpected keyword argument')], ids=['warm-up', 'factory'])
def test_a_planner_that_does_not_start_says_why(started, make, factory, words):
    worker = started(factory)
    with pytest.raises(WorkerError, match=words):
        worker.warm_up()
    assert worker.state is WorkerState.DEAD
    worker.submit(PlanRequest(observation=make.observation(), epoch=0))
    assert words in next_outcome(worker).message
    assert worker.poll() is None


def test_a_planner_that_never_gets_ready_is_given_up(started):
    worker = started(functools.partial(time.sleep, 60), start_timeout_s=0.3)
    with pytest.raises(WorkerError, match='was not ready after'):
        worker.warm_up()
    assert worker.state is WorkerState.DEAD


def test_a_hung_planner_is_reported_once_and_given_up(started, make):
    worker = started(hover(fault=Fault.HANGS), plan_timeout_s=0.3)
    worker.warm_up()
    worker.submit(PlanRequest(observation=make.observation(), epoch=0))
    failure = next_outcome(worker)
    assert isinstance(failure, PlanFailure) and 'hangs' in failure.message and '0.3 s' in failure.message
    assert worker.state is WorkerState.DEAD and worker.poll() is None


def test_closing_ends_a_working_planner_soon_and_closing_twice_does_nothing(started, make):
    worker = started(hover(delay_s=30.0))
    worker.warm_up()
    worker.submit(PlanRequest(observation=make.observation(), epoch=0))
    until(lambda: worker.state is WorkerState.BUSY)
    began_s = time.monotonic()
    worker.close(0.2)
    worker.close(0.2)
    assert time.monotonic() - began_s < 10
    assert worker.state is WorkerState.DEAD and worker.poll() is None
    worker.submit(PlanRequest(observation=make.observation(), epoch=0))
    assert worker.poll() is None
    with pytest.raises(WorkerError, match='closed'):
        worker.warm_up()


def test_closing_a_planner_that_is_still_starting_is_clean(started):
    worker = started(hover())
    worker.close(0.1)
    assert worker.state is WorkerState.DEAD and worker.poll() is None


@pytest.mark.parametrize(('arguments', 'named'), [
    ({'start_timeout_s': 0}, 'timeouts'), ({'plan_timeout_s': -1}, 'timeouts'),
    ({'torch_threads': 0}, 'torch_threads'), ({'nice': 20}, 'nice'), ({'restarts': -1}, 'restarts')])
def test_settings_out_of_range_are_refused_by_name(arguments, named):
    with pytest.raises(ValueError, match=named):
        WorkerConfig(**arguments)
