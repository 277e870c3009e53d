import math

import pytest

from apt_policy.core.sample import HoldReason
from apt_policy.inference.ports import PlanFailure
from apt_policy.inference.session import RunProgress, RunResult, RunSession, Termination


@pytest.fixture
def run(rig):
    """A run that moves the arms: the rig and its session."""
    rig = rig()
    rig.loop.activate()
    rig.loop.enable(True)
    session = RunSession(rig.loop)
    assert session.begin('wave', max_duration_s=1.0, now_ns=rig.now_ns).accepted
    rig.plan()
    assert rig.reason() is None
    return rig, session


def test_a_goal_needs_an_active_and_enabled_policy(rig):
    rig = rig()
    session = RunSession(rig.loop)
    inactive = session.begin('wave', max_duration_s=1.0, now_ns=0)
    rig.loop.activate()
    disabled = session.begin('wave', max_duration_s=1.0, now_ns=0)
    assert not inactive.accepted and 'activate' in inactive.message
    assert not disabled.accepted and 'enable' in disabled.message
    assert session.update(0) is None


@pytest.mark.parametrize(('prompt', 'limit_s', 'words'), [
    ('', 1.0, 'empty'), ('wave', -1.0, 'max_duration'), ('wave', math.nan, 'max_duration')])
def test_a_goal_that_makes_no_sense_is_refused(rig, prompt, limit_s, words):
    rig = rig()
    rig.loop.activate()
    rig.loop.enable(True)
    answer = RunSession(rig.loop).begin(prompt, max_duration_s=limit_s, now_ns=0)
    assert not answer.accepted and words in answer.message


def test_a_goal_is_refused_while_a_fault_is_on_record_or_another_run_is_on(run):
    rig, session = run
    second = session.begin('sit', max_duration_s=1.0, now_ns=rig.now_ns)
    assert not second.accepted and 'another run' in second.message
    assert rig.loop.status().prompt == 'wave'
    rig.worker.finish(PlanFailure(message='out of memory'))
    rig.tick()
    session.update(rig.now_ns)
    third = session.begin('sit', max_duration_s=1.0, now_ns=rig.now_ns)
    assert not third.accepted and 'out of memory' in third.message


def test_feedback_counts_from_the_begin(run):
    rig, session = run
    for _ in range(4):
        rig.tick()
    progress = session.update(rig.now_ns)
    assert isinstance(progress, RunProgress) and progress.hold_reason is HoldReason.NONE
    assert progress.elapsed_s == pytest.approx(0.1) and progress.targets_sent == 5


def test_a_cancel_stops_the_arms_at_the_next_tick_and_the_next_goal_needs_no_operator(run):
    rig, session = run
    session.cancel()
    assert rig.reason() is HoldReason.NO_PROMPT
    assert session.update(rig.now_ns).termination is Termination.CANCELED
    assert session.update(rig.now_ns) is None
    assert session.begin('sit', max_duration_s=1.0, now_ns=rig.now_ns).accepted
    assert isinstance(session.update(rig.now_ns), RunProgress)


def test_a_run_whose_client_is_gone_stops_the_arms_at_the_next_tick_and_says_so(run):
    rig, session = run
    session.abandon('the client is gone')
    session.cancel()
    assert rig.reason() is HoldReason.NO_PROMPT
    end = session.update(rig.now_ns)
    assert end.termination is Termination.CLIENT_GONE and end.message == 'the client is gone'
    assert session.begin('sit', max_duration_s=1.0, now_ns=rig.now_ns).accepted
    assert isinstance(session.update(rig.now_ns), RunProgress)


def test_time_up_stops_the_arms(run):
    rig, session = run
    while isinstance(end := session.update(rig.now_ns), RunProgress):
        rig.tick()
    assert end == RunResult(termination=Termination.TIME_UP, message='the time limit of 1 s is over', elapsed_s=1.0)
    assert rig.reason() is HoldReason.NO_PROMPT


def test_no_limit_means_no_limit(rig):
    rig = rig()
    rig.loop.activate()
    rig.loop.enable(True)
    session = RunSession(rig.loop)
    session.begin('wave', max_duration_s=0.0, now_ns=0)
    assert isinstance(session.update(10**15), RunProgress)


@pytest.mark.parametrize(('interfere', 'termination', 'words'), [
    (lambda rig: rig.loop.enable(False), Termination.DISABLED, 'disabled'),
    (lambda rig: rig.loop.deactivate(), Termination.DEACTIVATED, 'deactivated'),
    (lambda rig: rig.worker.finish(PlanFailure(message='out of memory')), Termination.FAILED, 'out of memory'),
    (lambda rig: rig.loop.second_publishers(('apt/left/target',)), Termination.FAILED, 'SECOND_PUBLISHER'),
    (lambda rig: rig.loop.clock_jumped('by 5 s'), Termination.FAILED, 'by 5 s'),
    (lambda rig: rig.loop.reset(), Termination.CANCELED, 'reset'),
    (lambda rig: (rig.loop.enable(False), rig.loop.enable(True)), Termination.CANCELED, 're-enable')])
def test_whoever_interferes_ends_the_run(run, interfere, termination, words):
    rig, session = run
    interfere(rig)
    rig.tick()
    end = session.update(rig.now_ns)
    assert isinstance(end, RunResult) and end.termination is termination and words in end.message
    assert session.update(rig.now_ns) is None


def test_a_run_that_another_prompt_ends_leaves_that_prompt_alone(run):
    rig, session = run
    rig.loop.set_prompt('sit')
    assert session.update(rig.now_ns).termination is Termination.CANCELED
    assert rig.loop.status().prompt == 'sit'


def test_a_stale_stream_pauses_a_run_and_does_not_end_it(run):
    rig, session = run
    rig.source.camera_age_s = 1.0
    assert rig.reason() is HoldReason.STALE_STREAM
    assert session.update(rig.now_ns).hold_reason is HoldReason.STALE_STREAM
    rig.source.camera_age_s = 0.0
    assert rig.reason() is None
