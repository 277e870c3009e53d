"""Managed life: what fails is told and leaves the node usable, whatever the order of transitions."""

from functools import partial

import pytest

from apt_policy.core.sample import HoldReason
from apt_policy.inference.hover_planner import Fault, HoverPlanner


@pytest.fixture
def planner(bench):
    """Configure with another planner, until the test ends."""
    def use(**settings):
        bench.policy._make_factory = lambda params, contract: partial(HoverPlanner, **settings)
    return use


def test_it_starts_disabled_and_says_so(bench):
    bench.stop()
    bench.until(lambda: bench.newest().hold_reason == HoldReason.INACTIVE, 'inactive')
    assert bench.transition('configure') and bench.transition('activate')
    bench.prompt('wave')
    bench.held(HoldReason.DISABLED, '~/enable')


def test_a_default_prompt_needs_no_other_one(bench):
    bench.stop()
    assert not bench.set(default_prompt='stack the cubes')
    assert bench.transition('configure') and bench.transition('activate') and bench.enable().success
    bench.flow()
    assert bench.listener.prompts[-1].data == 'stack the cubes'


@pytest.mark.parametrize('label', ['activate', 'deactivate', 'cleanup', 'nonsense'])
def test_a_transition_that_does_not_exist_now_is_refused_and_nothing_breaks(bench, label):
    bench.stop()
    assert not bench.transition(label)
    assert bench.state() == 'unconfigured'
    bench.start()
    bench.flow()


def test_configuring_or_cleaning_up_twice_changes_nothing(bench):
    assert not bench.transition('configure')
    assert bench.transition('deactivate') and not bench.transition('deactivate')
    assert bench.transition('cleanup') and not bench.transition('cleanup')
    assert bench.state() == 'unconfigured'


def test_deactivate_during_inference_stops_at_once_and_the_plan_is_dropped(bench, planner):
    planner(delay_s=1.0)
    bench.start()
    bench.flow()
    assert bench.transition('deactivate')
    bench.held(HoldReason.INACTIVE)
    assert bench.transition('activate')
    bench.held(HoldReason.DISABLED)


def test_an_unconfigured_node_refuses_operators_with_what_to_do(bench):
    bench.stop()
    assert 'configure' in bench.enable().message
    assert 'configure' in bench.prompt('wave').message
    bench.held(HoldReason.INACTIVE, 'not configured')


WRONG = [
    pytest.param({'contract': '/nowhere/robot.yaml'}, '/nowhere/robot.yaml', id='no contract'),
    pytest.param({'cameras': ['top', 'nose']}, "'nose'", id='unknown camera'),
    pytest.param({'cameras': ['wrist'], 'stamp_on_receipt': ['tail']}, "'tail'", id='unknown stream'),
    pytest.param({'default_prompt': 'z' * 10_000}, 'default_prompt', id='prompt too long'),
]


@pytest.mark.parametrize(('values', 'words'), WRONG)
def test_a_configuration_that_cannot_work_is_refused_with_the_reason_and_can_be_mended(bench, values, words):
    bench.stop()
    assert not bench.set(**values)
    assert not bench.transition('configure')
    assert bench.state() == 'unconfigured'
    bench.held(HoldReason.INACTIVE, words)
    assert any(words in line and 'configure failed' in line for line in bench.log)
    bench.mend()


@pytest.mark.parametrize('worker', ['thread', 'process'])
def test_a_planner_that_cannot_be_loaded_fails_configure_with_its_own_message(bench, planner, worker):
    bench.stop()
    planner(fault=Fault.RAISES_AT_START)
    assert not bench.set(worker=worker)
    assert not bench.transition('configure')
    bench.held(HoldReason.INACTIVE, 'this planner was made to fail at its start')
    planner()
    assert bench.transition('configure')


@pytest.mark.parametrize(('fault', 'reason', 'words'), [
    (Fault.RAISES, HoldReason.INFERENCE_FAILED, 'this planner was made to fail'),
    (Fault.RETURNS_NAN, HoldReason.NON_FINITE, 'NaN')])
def test_a_planner_that_fails_holds_the_arms_until_a_person_enables(bench, planner, fault, reason, words):
    planner(fault=fault, good_plans=5, delay_s=0.02)
    bench.start()
    bench.held(reason, words)


def test_a_planner_process_that_dies_holds_the_arms_and_is_named(bench, planner):
    planner(fault=Fault.EXITS, good_plans=3, delay_s=0.02)
    bench.start(worker='process')
    bench.held(HoldReason.INFERENCE_FAILED, 'exit code 3')
    assert not bench.enable().success


def test_parameters_that_configure_read_are_locked_until_cleanup(bench):
    reasons = bench.set(chunk_mode='real_time', seed=3)
    assert len(reasons) == 2 and all('unconfigured' in reason for reason in reasons)
    bench.stop()
    assert not bench.set(seed=3)
