"""Trials in closed loop."""

import json
from functools import partial
from pathlib import Path

import av
import pytest
from trial_workers import hover

from apt_policy.inference.fakes import Fault
from apt_policy.inference.planner_settings import PlannerSettings
from apt_policy.model.checkpoint import CheckpointError
from apt_sim.evaluation import main as sim_eval
from apt_sim.evaluation.evaluate import EvaluationSettings, Evaluator, policy_planner
from apt_sim.evaluation.splits import Split, skills_named
from apt_sim.evaluation.trial import TrialPlan
from apt_training.bulk.crew import Crew

CONTRACT = Path(__file__).parents[3] / 'apt_bringup' / 'config' / 'aloha_small.yaml'


def plan(split, skills='pick'):
    return TrialPlan(split=split, skills=skills_named(skills))


def settings(**changes):
    return EvaluationSettings(contract=str(CONTRACT), **changes)


@pytest.mark.parametrize(('split', 'skills', 'delay_s'), [
    (Split.SEEN, 'pick', 0.0), (Split.SEEN, 'pick', 0.1), (Split.UNSEEN_OBJECT, 'place', 0.0),
    (Split.COMPOSED, 'pick,place', 0.0)])
def test_who_knows_the_truth_succeeds(oracle, small, split, skills, delay_s):
    """So what fails is the policy's fault: the loop, its chunks, safety and the bridges carry out a good plan."""
    evaluator = Evaluator(settings(delay_s=delay_s), lambda contract: oracle, (plan(split, skills),), 1)
    oracle.trial = evaluator._drawer.begin(plan(split, skills), 0)[0]
    oracle.see = lambda: evaluator._situation()
    result = evaluator(0)
    evaluator.close()
    assert result.success, result.reason
    assert len(result.instructions) == (2 if split is Split.COMPOSED else 1)


def test_results_do_not_depend_on_the_number_of_jobs():
    factory = partial(Evaluator, settings(patience=0.3), hover, (plan(Split.SEEN), plan(Split.UNSEEN_WORDING)), 1)
    found = []
    for size in (1, 2):
        with Crew(factory, size) as crew:
            found.append({done.number: done.result for done in crew.do(range(2))})
    assert found[0] == found[1]
    assert {result.split for result in found[0].values()} == {'seen', 'unseen_wording'}
    assert all(result.reason == 'not done in 4.5 s' for result in found[0].values())


def test_a_failure_is_filmed(tmp_path):
    evaluator = Evaluator(settings(videos=tmp_path, patience=0.2), hover, (plan(Split.SEEN),), 1)
    assert not evaluator(0).success
    evaluator.close()
    with av.open(str(tmp_path / 'seen_0000.mp4')) as film:
        assert sum(1 for _ in film.decode(video=0)) == pytest.approx(40, abs=3)


def test_a_planner_that_fails_fails_the_trial_and_says_why():
    evaluator = Evaluator(settings(patience=0.1), partial(hover, fault=Fault.RAISES), (plan(Split.SEEN),), 1)
    result = evaluator(0)
    evaluator.close()
    assert not result.success and 'this planner was made to fail' in result.reason


def test_the_command_writes_what_it_found(tmp_path, capfd):
    words = ['--contract', str(CONTRACT), '--split', 'seen', '--skills', 'pick', '--episodes', '1', '--jobs', '1',
             '--patience', '0.3', '--denoising-steps', '2', '--json', str(tmp_path / 'score.json')]
    assert sim_eval.main(words) == 0
    found = json.loads((tmp_path / 'score.json').read_text())
    assert found == {'seen': {'episodes': 1, 'success': 0.0, 'low': 0.0, 'high': pytest.approx(0.7935, abs=1e-4),
                              'approached': found['seen']['approached']}}
    assert found['seen']['approached'] in (0.0, 1.0)
    said = capfd.readouterr().err
    assert 'UNTRAINED' in said and 'inference' in said


@pytest.mark.parametrize(('words', 'expected'), [
    (['--checkpoint', '/none'], 'there is no checkpoint /none'),
    (['--split', 'sene'], "did you mean 'seen'?"),
    (['--split', 'unseen_container', '--skills', 'pick'], 'needs the skill place'),
    (['--replan', '99'], 'replan_s is 99.0; expected 0 .. 10'),
    (['--patience', '0'], 'patience is 0.0; expected more than 0'),
    (['--noise-scale', '2'], 'noise_scale is 2.0; expected 0 (always the same plan) .. 1'),
    (['--ros', '--noise-scale', '-1'], 'noise_scale is -1.0; expected 0 '),
    (['--ros', '--delay', '0.1'], '--videos and --delay go without --ros'),
    (['--contract', '/none.yaml'], 'cannot read contract /none.yaml')])
def test_user_mistakes_are_answered_before_anything_starts(words, expected, capfd):
    assert sim_eval.main(['--contract', str(CONTRACT), *words]) == 2
    assert expected in ' '.join(capfd.readouterr().err.split())


def test_a_checkpoint_that_cannot_be_read_is_refused_in_its_own_words(tmp_path):
    (tmp_path / 'broken').mkdir()
    planner_of = partial(policy_planner, PlannerSettings(checkpoint=str(tmp_path / 'broken'), device='cpu'))
    with pytest.raises(CheckpointError, match=str(tmp_path / 'broken')):
        Evaluator(settings(), planner_of, (plan(Split.SEEN),), 1)
