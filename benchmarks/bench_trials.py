"""What generating data and evaluating in simulation cost, in processor time, and where it goes."""

import os
import tempfile
import time
from pathlib import Path

from apt_training.bulk.pool import ONE_THREAD

# Pictures need no window system; the rest as programs in bulk have it, and before libraries look.
os.environ.update(ONE_THREAD, MUJOCO_GL='disabled')

from ledger import record

from apt_policy.inference.planner_config import PlannerConfig
from apt_sim.collect.generate import GenerationSettings, Generator
from apt_sim.evaluation.evaluate import EvaluationSettings, Evaluator, policy_planner
from apt_sim.evaluation.score import shares
from apt_sim.evaluation.splits import Split, skills_named
from apt_sim.evaluation.trial import TrialPlan

COMMAND = 'python benchmarks/bench_trials.py'
CONTRACT = str(Path(__file__).resolve().parents[1] / 'apt_bringup' / 'config' / 'aloha_small.yaml')
SKILLS = skills_named('pick,place')
EPISODES, TRIALS = 6, 1


def main() -> None:
    generate()
    evaluate()


def generate() -> None:
    """Whole episodes, files included."""
    settings = GenerationSettings(contract=CONTRACT, plan=TrialPlan(split=Split.TRAIN, skills=SKILLS))
    with tempfile.TemporaryDirectory() as folder:
        generator = Generator(settings, Path(folder))
        # What is there is not written again.
        generator(EPISODES)
        began_s = time.process_time()
        made = [generator(number) for number in range(EPISODES)]
        spent_s = time.process_time() - began_s
        generator.close()
    record(name='sim_data_speed', value=sum(one.duration_s for one in made) / spent_s,
           unit='simulated s per s and core', goal='>= 8', command=COMMAND)
    kilobytes = sum(one.size for one in made) / sum(one.frames for one in made) / 1e3
    record(name='sim_data_kilobytes_per_frame', value=kilobytes, unit='kB', goal='', command=COMMAND)


def evaluate() -> None:
    """A policy of the debug size that has learned nothing: its trials last until their time is over."""
    plan = TrialPlan(split=Split.SEEN, skills=skills_named('pick'))
    settings = PlannerConfig(device='cpu', denoising_steps=10)
    evaluator = Evaluator(EvaluationSettings(contract=CONTRACT), lambda robot: policy_planner(settings, robot), (plan,),
                          TRIALS)
    began_s = time.process_time()
    results = [evaluator(number) for number in range(TRIALS)]
    spent_s = time.process_time() - began_s
    evaluator.close()
    record(name='sim_eval_speed', value=sum(result.duration_s for result in results) / spent_s,
           unit='simulated s per s and core', goal='', command=COMMAND)
    for what, share in shares(results).items():
        record(name=f'sim_eval_share_{what}', value=share, unit='of the time', goal='', command=COMMAND)


if __name__ == '__main__':
    main()
