"""Collection of demonstrations as the command line asks for it: the missing episodes, in worker processes."""

import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from apt_policy.cli import UsageError
from apt_policy.console import INTERRUPTED_STATUS, print_error
from apt_policy.core.contract import load_contract
from apt_sim.arguments import contract_path
from apt_sim.collect.arguments import CollectArguments
from apt_sim.collect.collector import CollectedEpisode, CollectionConfig, EpisodeCollector
from apt_sim.collect.dataset import BAGS, missing_episodes, remove_partial_files
from apt_sim.evaluation.rollout import RolloutPlan
from apt_sim.evaluation.splits import parse_skills, parse_split
from apt_sim.tasks.task import Skill
from apt_training.bulk.output_folder import prepare_output_folder
from apt_training.bulk.pool import JobDone, JobFailed, WorkerPool, WorkerPoolError


def collect(arguments: CollectArguments) -> int:
    """Collect the episodes that are missing; return 0 if every episode is there, 130 if interrupted, else 1.

    Raises:
        UserError: split, contract or folder cannot be used.
    """
    console = Console(stderr=True)
    settings = _settings(arguments)
    load_contract(settings.contract)
    prepare_output_folder(arguments.out, settings.facts())
    todo = missing_episodes(arguments.out, arguments.episodes, bags=arguments.bags)
    if there := arguments.episodes - len(missing_episodes(arguments.out, arguments.episodes)):
        console.print(f'{there} of {arguments.episodes} episodes are in {arguments.out} already',
                      markup=False, highlight=False, soft_wrap=True)
    run = _Run(settings, arguments.out, console, bags=arguments.bags)
    try:
        return run.finish(todo, arguments.workers)
    except KeyboardInterrupt:
        complete = arguments.episodes - len(missing_episodes(arguments.out, arguments.episodes))
        console.print(f'apt-sim-collect: interrupted; {complete} of {arguments.episodes} episodes are complete. The '
                      'same command resumes.', markup=False)
        return INTERRUPTED_STATUS


def _settings(arguments: CollectArguments) -> CollectionConfig:
    plan = RolloutPlan(split=parse_split(arguments.split), skills=parse_skills(arguments.skills), seed=arguments.seed)
    try:
        return CollectionConfig(
            contract=contract_path(arguments.contract), action_noise=arguments.action_noise,
            recovery_share=arguments.recovery_share, vary_cameras=arguments.vary_cameras, plan=plan)
    except ValueError as error:
        raise UsageError(str(error)) from error


class _Run:
    """One run over the episodes that are missing."""

    def __init__(self, settings: CollectionConfig, out: Path, console: Console, *, bags: int) -> None:
        self._settings, self._out, self._console, self._bags = settings, out, console, bags
        self._made: list[CollectedEpisode] = []
        self._lost: list[JobFailed] = []

    def finish(self, todo: Sequence[int], workers: int) -> int:
        """Make all of ``todo`` and return the exit status."""
        started_s, failure = time.monotonic(), ''
        try:
            self._generate(todo, workers)
        except WorkerPoolError as error:
            failure = str(error)
        self._summarize(time.monotonic() - started_s)
        for lost in self._lost:
            self._say(f'episode {lost.number} (scene seed {self._settings.plan.scene_seed(lost.number)}): '
                      f'{lost.reason}; the others went on. Run the same command to try it again.')
        if failure:
            self._say(f'{failure}\nEpisodes that are whole stay. Run the same command to go on.')
        return 1 if failure or self._lost else 0

    def _generate(self, todo: Sequence[int], workers: int) -> None:
        columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
                   TextColumn('{task.fields[rate]}'), TimeRemainingColumn())
        factory = partial(EpisodeCollector, self._settings, self._out, bags=self._bags)
        with Progress(*columns, console=self._console) as progress, WorkerPool(factory, workers) as pool:
            bar = progress.add_task('episodes', total=len(todo), rate='')
            began_s = time.monotonic()
            for outcome in pool.run(todo):
                self._take(outcome)
                simulated_s = sum(made.duration_s for made in self._made)
                progress.update(bar, advance=1,
                                rate=f'{simulated_s / (time.monotonic() - began_s):.1f} simulated s/s')

    def _take(self, outcome: JobDone | JobFailed) -> None:
        if isinstance(outcome, JobDone):
            self._made.append(outcome.result)
        else:
            self._lost.append(outcome)
            for pid in outcome.pids:
                remove_partial_files(self._out, pid)

    def _summarize(self, elapsed_s: float) -> None:
        if not self._made:
            return
        table = Table(title=f'{len(self._made)} episodes in {elapsed_s:.0f} s: {self._out}')
        for heading in ('skill', 'episodes', 'mean s', 'kB each', 'failed before'):
            table.add_column(heading, justify='left' if heading == 'skill' else 'right')
        count = Counter(made.skill for made in self._made)
        for skill in Skill:
            of_skill = [made for made in self._made if made.skill == skill.value]
            if of_skill:
                table.add_row(skill.value, str(count[skill.value]),
                              f'{sum(made.duration_s for made in of_skill) / len(of_skill):.1f}',
                              f'{sum(made.size for made in of_skill) / len(of_skill) / 1e3:.0f}',
                              str(sum(made.failures for made in of_skill)))
        self._console.print(table)
        if bags := sum(made.number < self._bags for made in self._made):
            self._console.print(f'{bags} of them as bags too: {self._out / BAGS}', markup=False, soft_wrap=True)

    def _say(self, text: str) -> None:
        print_error(self._console, f'apt-sim-collect: {text}')
