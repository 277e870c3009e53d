"""The same trials through real nodes over DDS."""

from pathlib import Path

import pytest

from apt_bringup.bulk.crew import CrewError
from apt_bringup.trials.evaluate import EvaluationSettings, Evaluator
from apt_bringup.trials.live import LivePolicy, trial_graph
from apt_bringup.trials.live_run import run_live
from apt_bringup.trials.splits import Split, skills_named
from apt_bringup.trials.trial import TrialPlan
from apt_policy.runtime.planner_settings import PlannerSettings

pytestmark = pytest.mark.live

CONTRACT = str(Path(__file__).parents[2] / 'config' / 'aloha_small.yaml')
PLANS = (TrialPlan(split=Split.UNSEEN_OBJECT, skills=skills_named('pick'), seed=5),)


@pytest.fixture(autouse=True)
def _on_this_machine(monkeypatch):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')


def policy(checkpoint=''):
    planner = PlannerSettings(checkpoint=checkpoint, device='cpu', denoising_steps=2, noise_scale=0.5)
    return LivePolicy(planner=planner, speed=0.5)


def test_the_node_is_started_with_what_was_asked_for():
    graph = trial_graph(EvaluationSettings(contract=CONTRACT, replan_s=0.4), policy('weights'))
    [node] = [node for node in graph.nodes if node.name == 'apt_policy']
    asked = {'checkpoint': 'weights', 'device': 'cpu', 'denoising_steps': 2, 'noise_scale': 0.5, 'seed': 0,
             'replan_period_s': 0.4}
    assert {name: node.parameters[name] for name in asked} == asked


def test_a_live_trial_is_the_one_of_its_number(hover_factory):
    settings = EvaluationSettings(contract=CONTRACT, patience=0.1)
    live = [done.result for done in run_live(settings, policy(), PLANS, 2, range(2))]
    evaluator = Evaluator(settings, hover_factory, PLANS, 2)
    direct = [evaluator(number) for number in range(2)]
    evaluator.close()
    assert [(one.seed, one.instructions) for one in live] == [(one.seed, one.instructions) for one in direct]
    assert [one.reason for one in live] == ['not done in 1.5 s'] * 2
    assert all(1.5 <= one.duration_s < 10.0 for one in live)


def test_a_policy_that_cannot_be_loaded_ends_the_run(tmp_path):
    settings = EvaluationSettings(contract=CONTRACT)
    with pytest.raises(CrewError, match=r'/apt_policy refused to configure|apt_policy .*ended'):
        list(run_live(settings, policy(str(tmp_path / 'none')), PLANS, 1, range(1)))
