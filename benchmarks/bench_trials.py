"""Processor time of collecting data and of rollouts in simulation, and its shares by activity."""

import os
import tempfile
import time
from pathlib import Path

from apt_training.bulk.pool import ONE_THREAD

# Rendering needs no window system; the rest is the environment of pool workers, set before libraries read it.
os.environ.update(ONE_THREAD, MUJOCO_GL='disabled')

from ledger import record

from apt_policy.inference.planner_config import PlannerConfig
from apt_sim.collect.collector import CollectionConfig, EpisodeCollector
from apt_sim.evaluation.evaluate import Evaluator, RolloutConfig, policy_planner
from apt_sim.evaluation.rollout import RolloutPlan
from apt_sim.evaluation.score import time_shares
from apt_sim.evaluation.splits import InstructionSplit, parse_skills

COMMAND = 'python benchmarks/bench_trials.py'
CONTRACT = str(Path(__file__).resolve().parents[1] / 'apt_bringup' / 'config' / 'aloha_small.yaml')
SKILLS = parse_skills('pick,place')
EPISODES, TRIALS = 6, 1


def main() -> None:
    generate()
    evaluate()


def generate() -> None:
    """Measure the collection of whole episodes, files included."""
    settings = CollectionConfig(contract=CONTRACT, plan=RolloutPlan(split=InstructionSplit.TRAIN, skills=SKILLS))
    with tempfile.TemporaryDirectory() as folder:
        collector = EpisodeCollector(settings, Path(folder))
        # Existing files are not written again.
        collector(EPISODES)
        began_s = time.process_time()
        made = [collector(number) for number in range(EPISODES)]
        spent_s = time.process_time() - began_s
        collector.close()
    record(name='sim_data_speed', value=sum(one.duration_s for one in made) / spent_s,
           unit='simulated s per s and core', goal='>= 8', command=COMMAND)
    kilobytes = sum(one.size for one in made) / sum(one.frames for one in made) / 1e3
    record(name='sim_data_kilobytes_per_frame', value=kilobytes, unit='kB', goal='', command=COMMAND)


def evaluate() -> None:
    """Measure rollouts of an untrained policy of the debug size, which last until their time limit."""
    plan = RolloutPlan(split=InstructionSplit.SEEN, skills=parse_skills('pick'))
    settings = PlannerConfig(device='cpu', denoising_steps=10)
    evaluator = Evaluator(RolloutConfig(contract=CONTRACT), lambda robot: policy_planner(settings, robot), (plan,),
                          TRIALS)
    began_s = time.process_time()
    results = [evaluator(number) for number in range(TRIALS)]
    spent_s = time.process_time() - began_s
    evaluator.close()
    record(name='sim_eval_speed', value=sum(result.duration_s for result in results) / spent_s,
           unit='simulated s per s and core', goal='', command=COMMAND)
    for what, share in time_shares(results).items():
        record(name=f'sim_eval_share_{what}', value=share, unit='of the time', goal='', command=COMMAND)


if __name__ == '__main__':
    main()
