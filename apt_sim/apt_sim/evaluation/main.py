"""``apt-sim-eval``: does the policy do what it is told?

    apt-sim-eval --checkpoint runs/vla --split seen,unseen_object --episodes 100 --json out/eval.json

Closed loop in simulation, faster than real time: a plan is there at once, or ``--delay`` simulated seconds
after its observation. The same seed gives the same result, whatever the number of jobs.
What was done before Ctrl-C, or beside a trial that was lost, is reported and written; ``episodes`` is the number done.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from apt_policy.console import print_error
from apt_policy.core.contract import ContractError, load_contract
from apt_policy.inference.planner_settings import PlannerSettings
from apt_policy.moved import current_checkpoint
from apt_sim.evaluation.evaluate import EvaluationSettings, Evaluator, TrialResult, policy_planner
from apt_sim.evaluation.live import LivePolicy, live_runner
from apt_sim.evaluation.score import scores, shares, table, write_json
from apt_sim.evaluation.splits import TESTS, Split, SplitError, skills_named, split_named
from apt_sim.evaluation.trial import TrialPlan
from apt_sim.options import add_shared, contract_path, positive
from apt_training.bulk.pool import Crew, CrewError, Done, Lost


def main(words: Sequence[str] | None = None) -> int:
    """Evaluate; the exit status: 0 if every trial was run, 130 if interrupted, else 1 or 2."""
    console = Console(stderr=True)
    options = _parser().parse_args(words)
    try:
        settings = EvaluationSettings(contract=contract_path(options.contract), replan_s=options.replan,
                                      delay_s=options.delay, patience=options.patience,
                                      videos=options.videos)
        load_contract(settings.contract)
        splits = tuple(dict.fromkeys(_splits(options.split)))
        skills = skills_named(options.skills)
        plans = tuple(TrialPlan(split=split, skills=skills, seed=options.seed) for split in splits)
        options.checkpoint = options.checkpoint and str(current_checkpoint(options.checkpoint))
        if options.checkpoint and not Path(options.checkpoint).exists():
            raise ValueError(f'there is no checkpoint {options.checkpoint}; expected a folder that apt-train wrote, '
                             'or a published file')
        planner = PlannerSettings(checkpoint=options.checkpoint, vlm=options.vlm, device=options.device,
                                  denoising_steps=options.denoising_steps, noise_scale=options.noise_scale,
                                  seed=options.seed)
        if options.ros:
            live_runner()
    except (SplitError, ContractError, ValueError) as error:
        print_error(console, f'apt-sim-eval: {error}')
        return 2
    if options.ros and (options.videos or options.delay):
        print_error(console, 'apt-sim-eval: --videos and --delay go without --ros: there, time is what it is')
        return 2
    if not options.checkpoint:
        console.print('no checkpoint: the policy is UNTRAINED and will fail', style='yellow')
    do = _live if options.ros else _in_processes
    return _Run(console, plans, options.episodes).finish(partial(do, settings, planner, plans, options), options.json)


class _Run:
    """All trials of one call."""

    def __init__(self, console: Console, plans: Sequence[TrialPlan], episodes: int) -> None:
        self._console, self._plans, self._episodes = console, plans, episodes
        self._results: dict[int, TrialResult] = {}
        self._losses: list[str] = []

    def finish(self, do: Callable[[range], Generator[Done | Lost]], target: Path | None) -> int:
        """Have all of them done, report what was done, and write it to ``target``; the exit status."""
        began_s, status, failure = time.monotonic(), 0, ''
        try:
            self._evaluate(do)
        except KeyboardInterrupt:
            status, failure = 130, 'interrupted'
        except CrewError as error:
            status, failure = 1, str(error)
        for words in (*self._losses, *filter(None, [failure])):
            print_error(self._console, f'apt-sim-eval: {words}')
        self._conclude(target, time.monotonic() - began_s)
        return status or (1 if self._losses else 0)

    def _conclude(self, target: Path | None, elapsed_s: float) -> None:
        """Report and write the trials that were done, and say how many are missing."""
        results = [self._results[job] for job in sorted(self._results)]
        wanted = len(self._plans) * self._episodes
        if results:
            self._report(results, elapsed_s)
            if target is not None:
                write_json(scores(results), target)
        if len(results) == wanted:
            return
        kept = '' if target is None else f'; {target} holds these' if results else f'; {target} was not written'
        print_error(self._console, f'apt-sim-eval: INCOMPLETE: {len(results)} of {wanted} trials were done{kept}')

    def _evaluate(self, do: Callable[[range], Generator[Done | Lost]]) -> None:
        columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
                   TextColumn('{task.fields[tally]}'), TimeRemainingColumn())
        total = len(self._plans) * self._episodes
        # Left half-way, the workers end before the results are told.
        with closing(do(range(total))) as outcomes, Progress(*columns, console=self._console) as progress:
            bar = progress.add_task('trials', total=total, tally='')
            for outcome in outcomes:
                if isinstance(outcome, Done):
                    self._results[outcome.number] = outcome.result
                else:
                    plan, number = self._plans[outcome.number // self._episodes], outcome.number % self._episodes
                    self._losses.append(f'{plan.split.value}, trial {number} (scene seed {plan.scene_seed(number)}): '
                                        f'{outcome.reason}; the others went on')
                done = sum(result.success for result in self._results.values())
                progress.update(bar, advance=1, tally=f'{done} succeeded')

    def _report(self, results: Sequence[TrialResult], elapsed_s: float) -> None:
        self._console.print(table(results, {plan.split.value: self._episodes for plan in self._plans}))
        simulated_s = sum(result.duration_s for result in results)
        parts = [f'{what} {100 * share:.0f} %' for what, share in shares(results).items()]
        self._console.print(', '.join([f'{simulated_s:.0f} simulated s in {elapsed_s:.0f} s', *parts]), highlight=False)


def _in_processes(settings: EvaluationSettings, planner: PlannerSettings, plans: tuple[TrialPlan, ...],
                  options: argparse.Namespace, todo: range) -> Generator[Done | Lost]:
    factory = partial(Evaluator, settings, partial(policy_planner, planner), plans, options.episodes)
    with Crew(factory, options.jobs) as crew:
        yield from crew.do(todo)


def _live(settings: EvaluationSettings, planner: PlannerSettings, plans: tuple[TrialPlan, ...],
          options: argparse.Namespace, todo: range) -> Generator[Done]:
    yield from live_runner()(settings, LivePolicy(planner=planner, speed=options.speed), plans, options.episodes, todo)


def _splits(names: str) -> list[Split]:
    return list(TESTS) if names == 'all' else [split_named(name) for name in names.split(',')]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='apt-sim-eval', description='Does the policy do what it is told?')
    parser.add_argument('--checkpoint', default='', help='folder or published file; empty: an untrained policy')
    parser.add_argument('--split', default='all', help='one or more, separated by commas: '
                        f'{", ".join(split.value for split in TESTS)}, train (default: all but train)')
    parser.add_argument('--episodes', type=positive, default=50, help='of each split (default: 50)')
    parser.add_argument('--json', type=Path, metavar='FILE',
                        help='write {split: {episodes, success, low, high, approached}}')
    parser.add_argument('--videos', type=Path, metavar='FOLDER', help='a film of every failure; slower')
    parser.add_argument('--replan', type=float, default=EvaluationSettings.replan_s, metavar='S',
                        help='simulated seconds between two plans (default: %(default)s)')
    parser.add_argument('--delay', type=float, default=0.0, metavar='S',
                        help='simulated seconds from an observation to its plan (default: 0)')
    parser.add_argument('--patience', type=float, default=1.0, metavar='X',
                        help='multiplies the time that an instruction may take (default: 1)')
    parser.add_argument('--ros', action='store_true',
                        help='through the live node over DDS, in the time of the simulator')
    parser.add_argument('--speed', type=float, default=min(1.0, len(os.sched_getaffinity(0)) / 6), metavar='X',
                        help='with --ros: simulated seconds per second (default here: %(default).2g)')
    parser.add_argument('--denoising-steps', type=positive, default=10, help='of each plan (default: 10)')
    parser.add_argument('--noise-scale', type=float, default=PlannerSettings.noise_scale, metavar='X',
                        help='of the noise that plans start from, 0 .. 1 (default: %(default)s)')
    parser.add_argument('--device', default='cpu', help='cpu, cuda, auto (default: cpu, which is reproducible)')
    parser.add_argument('--vlm', default='', help="in place of the checkpoint's")
    add_shared(parser)
    return parser


if __name__ == '__main__':
    sys.exit(main())
