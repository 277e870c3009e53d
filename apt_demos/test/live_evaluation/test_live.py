"""Rollouts through real nodes over DDS."""

from pathlib import Path

import pytest

from apt_demos.live_evaluation.live import rollout_graph
from apt_demos.live_evaluation.live_run import run_live
from apt_policy.inference.hover_planner import HoverPlanner
from apt_policy.inference.planner_config import PlannerConfig
from apt_sim.evaluation.evaluate import Evaluator, RolloutConfig
from apt_sim.evaluation.live import LivePolicyConfig
from apt_sim.evaluation.rollout import RolloutPlan
from apt_sim.evaluation.splits import InstructionSplit, parse_skills
from apt_training.bulk.pool import WorkerPoolError

pytestmark = pytest.mark.live

CONTRACT = str(Path(__file__).parents[3] / 'apt_bringup' / 'config' / 'aloha_small.yaml')
PLANS = (RolloutPlan(split=InstructionSplit.UNSEEN_OBJECT, skills=parse_skills('pick'), seed=5),)


@pytest.fixture(autouse=True)
def _on_this_machine(monkeypatch):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')


def hover(contract):
    return HoverPlanner(horizon=contract.horizon, step_s=contract.step_s)


def policy(checkpoint=''):
    planner = PlannerConfig(checkpoint=checkpoint, device='cpu', denoising_steps=2, noise_scale=0.5)
    return LivePolicyConfig(planner=planner, speed=0.5)


def test_the_node_is_started_with_what_was_asked_for(tmp_path):
    weights = str(tmp_path)
    graph = rollout_graph(RolloutConfig(contract=CONTRACT, replan_s=0.4), policy(weights))
    [node] = [node for node in graph.nodes if node.name == 'apt_policy']
    asked = {'checkpoint': weights, 'device': 'cpu', 'denoising_steps': 2, 'noise_scale': 0.5, 'seed': 0,
             'replan_period_s': 0.4}
    assert {name: node.parameters[name] for name in asked} == asked


def test_a_live_rollout_is_the_one_of_its_number():
    settings = RolloutConfig(contract=CONTRACT, patience=0.1)
    live = [done.result for done in run_live(settings, policy(), PLANS, 2, range(2))]
    evaluator = Evaluator(settings, hover, PLANS, 2)
    direct = [evaluator(number) for number in range(2)]
    evaluator.close()
    assert [(one.seed, one.instructions) for one in live] == [(one.seed, one.instructions) for one in direct]
    assert [one.reason for one in live] == ['not done in 1.5 s'] * 2
    assert all(1.5 <= one.duration_s < 10.0 for one in live)


def test_a_policy_that_cannot_be_loaded_ends_the_run(tmp_path):
    settings = RolloutConfig(contract=CONTRACT)
    no_weights = tmp_path / 'weights.pt'
    no_weights.write_text('not a checkpoint')
    with pytest.raises(WorkerPoolError, match=r'/apt_policy refused to configure|apt_policy .*ended'):
        list(run_live(settings, policy(str(no_weights)), PLANS, 1, range(1)))


def test_a_checkpoint_that_does_not_exist_starts_nothing(tmp_path):
    with pytest.raises(WorkerPoolError, match='there is no file or folder'):
        list(run_live(RolloutConfig(contract=CONTRACT), policy(str(tmp_path / 'none')), PLANS, 1, range(1)))
