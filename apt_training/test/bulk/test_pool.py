"""Jobs are done, whatever becomes of a process."""

import multiprocessing
import os
import signal
import sys
import time
from functools import partial

import psutil
import pytest
from pool_workers import Leaver, Reporter, Sleeper, Squarer, Stillborn, Unbuilt, complainer, surroundings

from apt_training.bulk.pool import Crew, CrewError, Done, Lost


@pytest.mark.parametrize('size', [1, 3])
def test_every_job_is_done_once(tmp_path, size):
    with Crew(partial(Squarer, tmp_path), size) as crew:
        assert sorted(done.result for done in crew.do(range(7))) == [k**2 for k in range(7)]


def test_the_job_of_a_killed_process_is_done_by_another(tmp_path):
    with Crew(partial(Squarer, tmp_path, deadly=2, deaths=1), 2) as crew:
        outcomes = list(crew.do(range(5)))
    assert sorted(outcome.number for outcome in outcomes if isinstance(outcome, Done)) == list(range(5))


def test_a_job_that_kills_every_process_is_lost_and_the_others_go_on(tmp_path):
    with Crew(partial(Squarer, tmp_path, deadly=2, deaths=9), 2) as crew:
        outcomes = {outcome.number: outcome for outcome in crew.do(range(5))}
    lost = outcomes.pop(2)
    assert isinstance(lost, Lost) and len(lost.pids) == 2
    assert lost.reason == 'its process was ended by signal 9 (SIGKILL), 2 times'
    assert all(isinstance(outcome, Done) for outcome in outcomes.values()) and len(outcomes) == 4


def test_what_a_worker_raises_ends_the_crew_in_its_words():
    with pytest.raises(CrewError, match='ValueError: 0 is not to my liking'), Crew(complainer, 1) as crew:
        list(crew.do([0]))
    with pytest.raises(CrewError, match='No space left on device'), Crew(Unbuilt, 2) as crew:
        list(crew.do([0, 1, 2]))


def test_processes_have_one_thread_each_and_leave_this_one_alone(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '7')
    with Crew(surroundings, 1, environment={'MOOD': 'good'}) as crew:
        assert [done.result for done in crew.do([0])] == [
            {'OMP_NUM_THREADS': '1', 'LP_NUM_THREADS': '0', 'MOOD': 'good'}]
    assert os.environ['OMP_NUM_THREADS'] == '7' and 'MOOD' not in os.environ


def test_no_jobs_need_no_processes(tmp_path):
    with Crew(partial(Squarer, tmp_path), 4) as crew:
        assert list(crew.do([])) == []


def processes():
    """Of pools; the one that tidies up after all of them stays until the end."""
    return {child.pid for child in psutil.Process().children(recursive=True)
            if not any('resource_tracker' in word for word in child.cmdline())}


def test_a_pool_that_is_left_by_an_exception_leaves_no_process_and_no_half_file_behind(tmp_path):
    before, busy = processes(), set()

    def interrupt(number, news):
        busy.add(number)
        if len(busy) == 3:
            assert len(processes() - before) == 3 and len(list(tmp_path.glob('*.half'))) == 3
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Crew(partial(Sleeper, tmp_path), 3, on_news=interrupt) as crew:
        list(crew.do(range(9)))
    assert processes() == before and not multiprocessing.active_children()
    assert not list(tmp_path.glob('*.half'))
    assert len(list(tmp_path.glob('*.closed'))) == 3


def test_a_pool_that_is_left_ends_within_seconds(tmp_path):
    with Crew(partial(Sleeper, tmp_path), 2) as crew:
        assert next(crew.do(range(9))).result == 0
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 5.0


def test_processes_that_heed_no_signal_end_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr('apt_training.bulk.pool._END_S', 0.5)
    before = processes()
    with Crew(partial(Sleeper, tmp_path, deaf=True), 2) as crew:
        assert next(crew.do(range(9))).result == 0
    assert processes() == before


def test_a_process_that_ends_by_itself_costs_its_job_only(tmp_path):
    with Crew(Leaver, 2) as crew:
        outcomes = {outcome.number: outcome for outcome in crew.do(range(4))}
    assert outcomes.pop(1).reason == 'its process ended with status 143, 2 times'
    assert outcomes.pop(2).reason == 'its process was ended by signal 11 (SIGSEGV), 2 times'
    assert all(isinstance(outcome, Done) for outcome in outcomes.values()) and len(outcomes) == 2


@pytest.mark.parametrize('pause_s', [0.0, 0.5])
def test_an_idle_process_that_is_killed_costs_nothing(tmp_path, pause_s):
    with Crew(partial(Squarer, tmp_path), 2) as crew:
        list(crew.do(range(4)))
        for pid in processes():
            os.kill(pid, signal.SIGKILL)
        time.sleep(pause_s)
        assert sorted(outcome.result for outcome in crew.do(range(4))) == [0, 1, 4, 9]


def test_a_process_that_dies_before_it_is_ready_is_named():
    with pytest.raises(CrewError, match=r'a worker process (ended|was ended by signal 9 \(SIGKILL\)) before it was '
                                        'ready'), Crew(Stillborn, 2) as crew:
        list(crew.do(range(4)))


def test_news_of_a_job_come_before_its_result():
    said = []
    with Crew(Reporter, 2, on_news=lambda number, news: said.append((number, news))) as crew:
        for outcome in crew.do(range(5)):
            assert [news for number, news in said if number == outcome.number] == ['begun', 'ended']
    assert len(said) == 10


def test_jobs_are_asked_for_when_a_process_is_free(tmp_path):
    asked = []
    with Crew(partial(Squarer, tmp_path), 2) as crew:
        for seen, _ in enumerate(crew.do(asked.append(number) or number for number in range(9)), start=1):
            assert len(asked) <= seen + 1
    assert asked == list(range(9))


def test_what_cannot_be_pickled_is_said_in_one_sentence(tmp_path):
    with pytest.raises(CrewError, match='[Pp]ickle'), Crew(lambda: None, 1) as crew:
        list(crew.do([0]))


def test_where_the_library_is_missing_a_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pebble', None)
    with pytest.raises(CrewError, match='needs pebble: pip install -r requirements'):
        Crew(complainer, 1).__enter__()
