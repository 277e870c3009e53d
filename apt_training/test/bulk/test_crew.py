"""Jobs are done, whatever becomes of a process."""

import os
from functools import partial

import pytest
from crew_workers import Squarer, Unbuilt, complainer, surroundings

from apt_training.bulk.crew import Crew, CrewError, Done, Lost


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
