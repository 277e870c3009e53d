"""Jobs of the pool, with processes that fail in every way."""

import multiprocessing
import os
import signal
import sys
import time
from functools import partial

import psutil
import pytest
from pool_workers import Leaver, Reporter, Sleeper, Squarer, Stillborn, Unbuilt, complainer, surroundings

from apt_training.bulk.pool import JobDone, JobFailed, WorkerPool, WorkerPoolError


@pytest.mark.parametrize('size', [1, 3])
def test_every_job_is_done_once(tmp_path, size):
    with WorkerPool(partial(Squarer, tmp_path), size) as pool:
        assert sorted(done.result for done in pool.run(range(7))) == [k**2 for k in range(7)]


def test_the_job_of_a_killed_process_is_done_by_another(tmp_path):
    with WorkerPool(partial(Squarer, tmp_path, deadly=2, deaths=1), 2) as pool:
        outcomes = list(pool.run(range(5)))
    assert sorted(outcome.number for outcome in outcomes if isinstance(outcome, JobDone)) == list(range(5))


def test_a_job_that_kills_every_process_fails_and_the_others_go_on(tmp_path):
    with WorkerPool(partial(Squarer, tmp_path, deadly=2, deaths=9), 2) as pool:
        outcomes = {outcome.number: outcome for outcome in pool.run(range(5))}
    lost = outcomes.pop(2)
    assert isinstance(lost, JobFailed) and len(lost.pids) == 2
    assert lost.reason == 'its process was killed by signal 9 (SIGKILL), 2 times'
    assert all(isinstance(outcome, JobDone) for outcome in outcomes.values()) and len(outcomes) == 4


def test_an_exception_of_a_worker_ends_the_pool_with_its_message():
    with pytest.raises(WorkerPoolError, match='ValueError: 0 is not to my liking'), WorkerPool(complainer, 1) as pool:
        list(pool.run([0]))
    with pytest.raises(WorkerPoolError, match='No space left on device'), WorkerPool(Unbuilt, 2) as pool:
        list(pool.run([0, 1, 2]))


def test_processes_have_one_thread_each_and_leave_this_one_alone(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '7')
    with WorkerPool(surroundings, 1, environment={'MOOD': 'good'}) as pool:
        assert [done.result for done in pool.run([0])] == [
            {'OMP_NUM_THREADS': '1', 'LP_NUM_THREADS': '0', 'MOOD': 'good'}]
    assert os.environ['OMP_NUM_THREADS'] == '7' and 'MOOD' not in os.environ


def test_no_jobs_need_no_processes(tmp_path):
    with WorkerPool(partial(Squarer, tmp_path), 4) as pool:
        assert list(pool.run([])) == []


def processes():
    """Return the process ids of pools, without the resource tracker."""
    return {child.pid for child in psutil.Process().children(recursive=True)
            if not any('resource_tracker' in word for word in child.cmdline())}


def test_a_pool_that_is_left_by_an_exception_leaves_no_process_and_no_half_file_behind(tmp_path):
    before, busy = processes(), set()

    def interrupt(number, progress):
        busy.add(number)
        if len(busy) == 3:
            assert len(processes() - before) == 3 and len(list(tmp_path.glob('*.half'))) == 3
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), WorkerPool(partial(Sleeper, tmp_path), 3, on_progress=interrupt) as pool:
        list(pool.run(range(9)))
    assert processes() == before and not multiprocessing.active_children()
    assert not list(tmp_path.glob('*.half'))
    assert len(list(tmp_path.glob('*.closed'))) == 3


def test_a_pool_that_is_left_ends_within_seconds(tmp_path):
    with WorkerPool(partial(Sleeper, tmp_path), 2) as pool:
        assert next(pool.run(range(9))).result == 0
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 5.0


def test_processes_that_heed_no_signal_end_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr('apt_training.bulk.pool._END_S', 0.5)
    before = processes()
    with WorkerPool(partial(Sleeper, tmp_path, deaf=True), 2) as pool:
        assert next(pool.run(range(9))).result == 0
    assert processes() == before


def test_a_process_that_ends_by_itself_costs_its_job_only(tmp_path):
    with WorkerPool(Leaver, 2) as pool:
        outcomes = {outcome.number: outcome for outcome in pool.run(range(4))}
    assert outcomes.pop(1).reason == 'its process ended with status 143, 2 times'
    assert outcomes.pop(2).reason == 'its process was killed by signal 11 (SIGSEGV), 2 times'
    assert all(isinstance(outcome, JobDone) for outcome in outcomes.values()) and len(outcomes) == 2


@pytest.mark.parametrize('pause_s', [0.0, 0.5])
def test_an_idle_process_that_is_killed_costs_nothing(tmp_path, pause_s):
    with WorkerPool(partial(Squarer, tmp_path), 2) as pool:
        list(pool.run(range(4)))
        for pid in processes():
            os.kill(pid, signal.SIGKILL)
        time.sleep(pause_s)
        assert sorted(outcome.result for outcome in pool.run(range(4))) == [0, 1, 4, 9]


def test_a_process_that_dies_before_it_is_ready_is_named():
    with pytest.raises(WorkerPoolError, match=r'a worker process (ended|was killed by signal 9 \(SIGKILL\)) before its '
                                        'worker was built'), WorkerPool(Stillborn, 2) as pool:
        list(pool.run(range(4)))


def test_progress_of_a_job_comes_before_its_result():
    said = []
    with WorkerPool(Reporter, 2, on_progress=lambda number, progress: said.append((number, progress))) as pool:
        for outcome in pool.run(range(5)):
            assert [progress for number, progress in said if number == outcome.number] == ['begun', 'ended']
    assert len(said) == 10


def test_jobs_are_asked_for_when_a_process_is_free(tmp_path):
    asked = []
    with WorkerPool(partial(Squarer, tmp_path), 2) as pool:
        for seen, _ in enumerate(pool.run(asked.append(number) or number for number in range(9)), start=1):
            assert len(asked) <= seen + 1
    assert asked == list(range(9))


def test_a_factory_that_cannot_be_pickled_is_reported(tmp_path):
    with pytest.raises(WorkerPoolError, match='[Pp]ickle'), WorkerPool(lambda: None, 1) as pool:
        list(pool.run([0]))


def test_a_missing_library_is_reported_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pebble', None)
    with pytest.raises(WorkerPoolError, match='need pebble: pip install -r requirements'):
        WorkerPool(complainer, 1).__enter__()
