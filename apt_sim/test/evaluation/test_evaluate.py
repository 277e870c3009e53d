"""Closed-loop rollouts."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import av
import pytest
from rich.console import Console
from rollout_workers import hover

from apt_policy.inference.hover_planner import Fault
from apt_policy.inference.planner_config import PlannerConfig
from apt_policy.model.checkpoint import CheckpointError
from apt_sim.evaluation import main as sim_eval
from apt_sim.evaluation import run as sim_eval_run
from apt_sim.evaluation.evaluate import Evaluator, RolloutConfig, RolloutResult, policy_planner
from apt_sim.evaluation.rollout import RolloutPlan
from apt_sim.evaluation.splits import InstructionSplit, parse_skills
from apt_sim.tasks.task_scene import ground_truth
from apt_training.bulk.pool import JobDone, JobFailed, WorkerPool, WorkerPoolError

CONTRACT = Path(__file__).parents[3] / 'apt_bringup' / 'config' / 'aloha_small.yaml'


def plan(split, skills='pick'):
    return RolloutPlan(split=split, skills=parse_skills(skills))


def settings(**changes):
    return RolloutConfig(contract=str(CONTRACT), **changes)


@pytest.mark.parametrize(('split', 'skills', 'delay_s'), [
    (InstructionSplit.SEEN, 'pick', 0.0), (InstructionSplit.SEEN, 'pick', 0.1), (InstructionSplit.UNSEEN_OBJECT,
                                                                                 'place', 0.0),
    (InstructionSplit.COMPOSED, 'pick,place', 0.0)])
def test_a_planner_with_ground_truth_succeeds(oracle, small, split, skills, delay_s):
    """Loop, chunking, safety and bridges execute a good plan, so a failure is the fault of the policy."""
    evaluator = Evaluator(settings(delay_s=delay_s), lambda contract: oracle, (plan(split, skills),), 1)
    oracle.rollout = evaluator._sampler.sample(plan(split, skills), 0)[0]
    oracle.see = lambda: ground_truth(evaluator._simulation)
    result = evaluator(0)
    evaluator.close()
    assert result.success, result.reason
    assert len(result.instructions) == (2 if split is InstructionSplit.COMPOSED else 1)


def test_results_do_not_depend_on_the_number_of_jobs():
    factory = partial(Evaluator, settings(patience=0.3), hover,
                      (plan(InstructionSplit.SEEN), plan(InstructionSplit.UNSEEN_WORDING)), 1)
    found = []
    for size in (1, 2):
        with WorkerPool(factory, size) as pool:
            found.append({done.number: done.result for done in pool.run(range(2))})
    assert found[0] == found[1]
    assert {result.split for result in found[0].values()} == {'seen', 'unseen_wording'}
    assert all(result.reason == 'not done in 4.5 s' for result in found[0].values())


def test_a_failure_is_recorded_as_a_video(tmp_path):
    evaluator = Evaluator(settings(videos=tmp_path, patience=0.2), hover, (plan(InstructionSplit.SEEN),), 1)
    assert not evaluator(0).success
    evaluator.close()
    with av.open(str(tmp_path / 'seen_0000.mp4')) as film:
        assert sum(1 for _ in film.decode(video=0)) == pytest.approx(40, abs=3)


def test_a_failing_planner_fails_the_rollout_with_a_reason():
    evaluator = Evaluator(settings(patience=0.1), partial(hover, fault=Fault.RAISES), (plan(InstructionSplit.SEEN),), 1)
    result = evaluator(0)
    evaluator.close()
    assert not result.success and 'this planner was made to fail' in result.reason


def test_the_command_writes_what_it_found(tmp_path, capfd):
    words = ['--contract', str(CONTRACT), '--split', 'seen', '--skills', 'pick', '--episodes', '1', '--workers', '1',
             '--patience', '0.3', '--denoising-steps', '2', '--json', str(tmp_path / 'score.json')]
    assert sim_eval.main(words) == 0
    found = json.loads((tmp_path / 'score.json').read_text())
    assert found == {'seen': {'episodes': 1, 'success': 0.0, 'low': 0.0, 'high': pytest.approx(0.7935, abs=1e-4),
                              'approached': found['seen']['approached']}}
    assert found['seen']['approached'] in (0.0, 1.0)
    said = capfd.readouterr().err
    assert 'UNTRAINED' in said and 'inference' in said


def test_an_interrupted_evaluation_writes_what_was_done(tmp_path):
    words = ['--contract', str(CONTRACT), '--split', 'seen,unseen_wording', '--skills', 'pick', '--episodes', '200',
             '--workers', '1', '--patience', '0.1', '--denoising-steps', '1', '--json', str(tmp_path / 'score.json'),
             '--videos', str(tmp_path / 'films')]
    process = subprocess.Popen([sys.executable, '-m', 'apt_sim.evaluation.main', *words], text=True,
                               stderr=subprocess.PIPE, env={**os.environ, 'COLUMNS': '200'}, start_new_session=True)
    deadline = time.monotonic() + 200
    # Each failure gives a video, one after the other: with the third video the first two rollouts are done.
    while not (tmp_path / 'films' / 'seen_0002.mp4').exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    # A terminal sends the signal to all processes of the group.
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    found = json.loads((tmp_path / 'score.json').read_text())
    assert list(found) == ['seen'] and found['seen'].keys() == {'episodes', 'success', 'low', 'high', 'approached'}
    done = found['seen']['episodes']
    assert 2 <= done < 200 and f'{done} of 200' in said and '0 of 200' in said
    assert 'apt-sim-eval: interrupted' in said and 'Traceback' not in said
    assert f'INCOMPLETE: {done} of 400 rollouts were done; {tmp_path}/score.json holds these' in said


@pytest.mark.parametrize('ends_with', [JobFailed(number=1, reason='its process ended', pids=(1, 2)),
                                       WorkerPoolError('no memory')])
def test_rollouts_beside_a_lost_one_are_reported_and_written(ends_with, tmp_path):
    done = RolloutResult(split='seen', number=0, seed=0, instructions=('go',), success=True, reached_target_object=True,
                         failure=None, reason='', duration_s=1.0, spent_s={})

    def outcomes(_):
        yield JobDone(number=0, result=done)
        if isinstance(ends_with, WorkerPoolError):
            raise ends_with
        yield ends_with

    written = io.StringIO()
    run = sim_eval_run._Run(Console(file=written, width=200), (plan(InstructionSplit.SEEN),), 2)
    assert run.finish(outcomes, tmp_path / 'score.json') == 1
    found = json.loads((tmp_path / 'score.json').read_text())
    assert (found['seen']['episodes'], found['seen']['success']) == (1, 1.0)
    said = written.getvalue()
    assert getattr(ends_with, 'reason', str(ends_with)) in said and 'INCOMPLETE: 1 of 2 rollouts were done' in said


def test_where_nothing_was_done_nothing_is_written(tmp_path):
    def outcomes(_):
        yield JobFailed(number=0, reason='its process ended', pids=(1,))

    written = io.StringIO()
    run = sim_eval_run._Run(Console(file=written, width=200), (plan(InstructionSplit.SEEN),), 1)
    assert run.finish(outcomes, tmp_path / 'score.json') == 1 and not any(tmp_path.iterdir())
    assert f'INCOMPLETE: 0 of 1 rollouts were done; {tmp_path}/score.json was not written' in written.getvalue()


@pytest.mark.parametrize(('words', 'expected'), [
    (['--checkpoint', '/none'], 'there is no checkpoint /none'),
    (['--checkpoint', 'apt_bringup/checkpoints/gone'], 'there is no checkpoint apt_bringup/checkpoints/gone'),
    (['--split', 'sene'], "did you mean seen?"),
    (['--split', 'unseen_container', '--skills', 'pick'], 'requires place'),
    (['--replan', '99'], 'replan_s is 99.0; expected 0 .. 10'),
    (['--patience', '0'], 'patience is 0.0; expected more than 0'),
    (['--noise-scale', '2'], 'noise_scale is 2.0; expected 0 (deterministic) .. 1'),
    (['--ros', '--noise-scale', '-1'], 'noise_scale is -1.0; expected 0 '),
    (['--ros', '--delay', '0.1'], '--videos and --delay cannot be combined with --ros'),
    (['--contract', '/none.yaml'], 'cannot read contract /none.yaml')])
def test_user_mistakes_are_answered_before_anything_starts(words, expected, capfd):
    assert sim_eval.main(['--contract', str(CONTRACT), *words]) == 2
    assert expected in ' '.join(capfd.readouterr().err.split())


def test_a_checkpoint_that_cannot_be_read_is_refused_in_its_own_words(tmp_path):
    (tmp_path / 'broken').mkdir()
    planner_factory = partial(policy_planner, PlannerConfig(checkpoint=str(tmp_path / 'broken'), device='cpu'))
    with pytest.raises(CheckpointError, match=str(tmp_path / 'broken')):
        Evaluator(settings(), planner_factory, (plan(InstructionSplit.SEEN),), 1)
