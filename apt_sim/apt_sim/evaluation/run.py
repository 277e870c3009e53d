"""Evaluation in simulation as the command line asks for it: all rollouts, in worker processes or on live nodes."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from apt_policy.cli import UsageError
from apt_policy.console import print_error
from apt_policy.core.contract import load_contract
from apt_policy.inference.planner_config import PlannerConfig
from apt_policy.moved import current_checkpoint, current_vlm
from apt_sim.arguments import contract_path
from apt_sim.evaluation.arguments import SimEvalArguments
from apt_sim.evaluation.evaluate import Evaluator, RolloutConfig, RolloutResult, policy_planner
from apt_sim.evaluation.live import LivePolicyConfig, live_runner
from apt_sim.evaluation.rollout import RolloutPlan
from apt_sim.evaluation.score import score_splits, score_table, time_shares, write_json
from apt_sim.evaluation.splits import TEST_SPLITS, InstructionSplit, parse_skills, parse_split
from apt_training.bulk.pool import JobDone, JobFailed, WorkerPool, WorkerPoolError


def evaluate_policy(arguments: SimEvalArguments) -> int:
    """Run all rollouts; return 0 if every rollout was run, 130 if interrupted, else 1.

    Raises:
        UserError: splits, contract, checkpoint or values cannot be used.
    """
    console = Console(stderr=True)
    settings, planner = _settings(arguments)
    load_contract(settings.contract)
    skills = parse_skills(arguments.skills)
    plans = tuple(RolloutPlan(split=split, skills=skills, seed=arguments.seed)
                  for split in dict.fromkeys(_splits(arguments.split)))
    if arguments.ros:
        live_runner()
    if not planner.checkpoint:
        console.print('no checkpoint: the policy is UNTRAINED and will fail', style='yellow')
    do = _live if arguments.ros else _in_processes
    return _Run(console, plans, arguments.episodes).finish(partial(do, settings, planner, plans, arguments),
                                                           arguments.json)


def _settings(arguments: SimEvalArguments) -> tuple[RolloutConfig, PlannerConfig]:
    checkpoint = arguments.checkpoint and str(current_checkpoint(arguments.checkpoint))
    if checkpoint and not Path(checkpoint).exists():
        raise UsageError(f'there is no checkpoint {checkpoint}; expected a folder that apt-train wrote, or a published '
                         'file')
    try:
        settings = RolloutConfig(
            contract=contract_path(arguments.contract), replan_s=arguments.replan, delay_s=arguments.delay,
            patience=arguments.patience, videos=arguments.videos)
        planner = PlannerConfig(
            checkpoint=checkpoint, vlm=current_vlm(arguments.vlm),
            device=arguments.device, denoising_steps=arguments.denoising_steps, noise_scale=arguments.noise_scale,
            seed=arguments.seed)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return settings, planner


class _Run:
    """All rollouts of one call."""

    def __init__(self, console: Console, plans: Sequence[RolloutPlan], episodes: int) -> None:
        self._console, self._plans, self._episodes = console, plans, episodes
        self._results: dict[int, RolloutResult] = {}
        self._losses: list[str] = []

    def finish(self, do: Callable[[range], Generator[JobDone | JobFailed]], target: Path | None) -> int:
        """Have all of them done, report what was done, and write it to ``target``; the exit status."""
        began_s, status, failure = time.monotonic(), 0, ''
        try:
            self._evaluate(do)
        except KeyboardInterrupt:
            status, failure = 130, 'interrupted'
        except WorkerPoolError as error:
            status, failure = 1, str(error)
        for words in (*self._losses, *filter(None, [failure])):
            print_error(self._console, f'apt-sim-eval: {words}')
        self._conclude(target, time.monotonic() - began_s)
        return status or (1 if self._losses else 0)

    def _conclude(self, target: Path | None, elapsed_s: float) -> None:
        """Report and write the rollouts that were done, and how many are missing."""
        results = [self._results[job] for job in sorted(self._results)]
        wanted = len(self._plans) * self._episodes
        if results:
            self._report(results, elapsed_s)
            if target is not None:
                write_json(score_splits(results), target)
        if len(results) == wanted:
            return
        kept = '' if target is None else f'; {target} holds these' if results else f'; {target} was not written'
        print_error(self._console, f'apt-sim-eval: INCOMPLETE: {len(results)} of {wanted} rollouts were done{kept}')

    def _evaluate(self, do: Callable[[range], Generator[JobDone | JobFailed]]) -> None:
        columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
                   TextColumn('{task.fields[tally]}'), TimeRemainingColumn())
        total = len(self._plans) * self._episodes
        # Left half-way, the workers end before the results are told.
        with closing(do(range(total))) as outcomes, Progress(*columns, console=self._console) as progress:
            bar = progress.add_task('rollouts', total=total, tally='')
            for outcome in outcomes:
                if isinstance(outcome, JobDone):
                    self._results[outcome.number] = outcome.result
                else:
                    plan, number = self._plans[outcome.number // self._episodes], outcome.number % self._episodes
                    self._losses.append(f'{plan.split.value}, rollout {number} (scene seed {plan.scene_seed(number)}): '
                                        f'{outcome.reason}; the others went on')
                done = sum(result.success for result in self._results.values())
                progress.update(bar, advance=1, tally=f'{done} succeeded')

    def _report(self, results: Sequence[RolloutResult], elapsed_s: float) -> None:
        self._console.print(score_table(results, {plan.split.value: self._episodes for plan in self._plans}))
        simulated_s = sum(result.duration_s for result in results)
        parts = [f'{what} {100 * share:.0f} %' for what, share in time_shares(results).items()]
        self._console.print(', '.join([f'{simulated_s:.0f} simulated s in {elapsed_s:.0f} s', *parts]), highlight=False)


def _in_processes(settings: RolloutConfig, planner: PlannerConfig, plans: tuple[RolloutPlan, ...],
                  arguments: SimEvalArguments, todo: range) -> Generator[JobDone | JobFailed]:
    factory = partial(Evaluator, settings, partial(policy_planner, planner), plans, arguments.episodes)
    with WorkerPool(factory, arguments.workers) as pool:
        yield from pool.run(todo)


def _live(settings: RolloutConfig, planner: PlannerConfig, plans: tuple[RolloutPlan, ...],
          arguments: SimEvalArguments, todo: range) -> Generator[JobDone]:
    yield from live_runner()(settings, LivePolicyConfig(planner=planner, speed=arguments.speed), plans,
                             arguments.episodes, todo)


def _splits(names: str) -> list[InstructionSplit]:
    return list(TEST_SPLITS) if names == 'all' else [parse_split(name) for name in names.split(',')]
