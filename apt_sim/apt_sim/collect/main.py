"""``apt-sim-data``: demonstrations in bulk, as the episode files that the converter writes.

    apt-sim-data --split train --episodes 2000 --jobs 2 --out data/train
    apt-sim-data --split train --episodes 2000 --bags 3 --out data/train     # the first three as rosbag2 bags too

The same settings give the same bytes, whatever the number of jobs; a run that was broken off goes on at the
first episode, or bag, that is missing.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from apt_policy.console import print_error
from apt_policy.core.contract import ContractError, load_contract
from apt_sim.collect.dataset import BAGS, missing, sweep
from apt_sim.collect.generate import GenerationSettings, Generator, Made
from apt_sim.evaluation.splits import SplitError, skills_named, split_named
from apt_sim.evaluation.trial import TrialPlan
from apt_sim.options import add_shared, contract_path, natural, positive
from apt_sim.tasks.task import Skill
from apt_training.bulk.folder import FolderError, claim
from apt_training.bulk.pool import Crew, CrewError, Done, Lost


def main(words: Sequence[str] | None = None) -> int:
    """Generate; the exit status: 0 if every episode is there, 130 if interrupted, else 1 or 2."""
    console = Console(stderr=True)
    options = _parser().parse_args(words)
    try:
        _check_bags(options.bags, options.episodes)
        settings = GenerationSettings(
            contract=contract_path(options.contract), disturbance=options.disturb,
            stumble=options.stumble, vary_cameras=not options.still_cameras,
            plan=TrialPlan(split=split_named(options.split), skills=skills_named(options.skills), seed=options.seed))
        load_contract(settings.contract)
        claim(options.out, settings.facts())
    except (SplitError, ContractError, FolderError, ValueError) as error:
        print_error(console, f'apt-sim-data: {error}')
        return 2
    todo = missing(options.out, options.episodes, bags=options.bags)
    if there := options.episodes - len(missing(options.out, options.episodes)):
        console.print(f'{there} of {options.episodes} episodes are in {options.out} already',
                      markup=False, highlight=False, soft_wrap=True)
    run = _Run(settings, options.out, console, bags=options.bags)
    try:
        return run.finish(todo, options.jobs)
    except KeyboardInterrupt:
        whole = options.episodes - len(missing(options.out, options.episodes))
        console.print(f'apt-sim-data: interrupted; {whole} of {options.episodes} episodes are whole. The same command '
                      'goes on.', markup=False)
        return 130


class _Run:
    """One run over the episodes that are missing."""

    def __init__(self, settings: GenerationSettings, out: Path, console: Console, *, bags: int) -> None:
        self._settings, self._out, self._console, self._bags = settings, out, console, bags
        self._made: list[Made] = []
        self._lost: list[Lost] = []

    def finish(self, todo: Sequence[int], jobs: int) -> int:
        """Make all of ``todo``; the exit status."""
        started_s, failure = time.monotonic(), ''
        try:
            self._generate(todo, jobs)
        except CrewError as error:
            failure = str(error)
        self._summarize(time.monotonic() - started_s)
        for lost in self._lost:
            self._say(f'episode {lost.number} (scene seed {self._settings.plan.scene_seed(lost.number)}): '
                      f'{lost.reason}; the others went on. Run the same command to try it again.')
        if failure:
            self._say(f'{failure}\nEpisodes that are whole stay. Run the same command to go on.')
        return 1 if failure or self._lost else 0

    def _generate(self, todo: Sequence[int], jobs: int) -> None:
        columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
                   TextColumn('{task.fields[rate]}'), TimeRemainingColumn())
        factory = partial(Generator, self._settings, self._out, bags=self._bags)
        with Progress(*columns, console=self._console) as progress, Crew(factory, jobs) as crew:
            bar = progress.add_task('episodes', total=len(todo), rate='')
            began_s = time.monotonic()
            for outcome in crew.do(todo):
                self._take(outcome)
                simulated_s = sum(made.duration_s for made in self._made)
                progress.update(bar, advance=1,
                                rate=f'{simulated_s / (time.monotonic() - began_s):.1f} simulated s/s')

    def _take(self, outcome: Done | Lost) -> None:
        if isinstance(outcome, Done):
            self._made.append(outcome.result)
        else:
            self._lost.append(outcome)
            for pid in outcome.pids:
                sweep(self._out, pid)

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
        print_error(self._console, f'apt-sim-data: {text}')


def _check_bags(bags: int, episodes: int) -> None:
    if bags > episodes:
        raise ValueError(f'--bags is {bags}, but the folder shall hold {episodes} episodes; a bag is made of an '
                         f'episode: expected at most {episodes}, or more --episodes')


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='apt-sim-data', description='Demonstrations in simulation, in bulk.')
    parser.add_argument('--split', default='train', help='train, seen, unseen_object, unseen_container or '
                                                         'unseen_wording (default: train)')
    parser.add_argument('--episodes', type=positive, required=True, help='how many the folder shall hold')
    parser.add_argument('--out', type=Path, required=True, help='folder of the episodes')
    parser.add_argument('--bags', type=natural, default=0, metavar='K',
                        help=f'write the first K episodes as rosbag2 bags too, below OUT/{BAGS} (default: 0)')
    parser.add_argument('--disturb', type=float, default=0.0, metavar='METRES',
                        help='push the demonstrator off its path, so that the data shows how to come back; '
                             'standard deviation, 0.01 is much (default: 0)')
    parser.add_argument('--stumble', type=float, default=0.0, metavar='SHARE',
                        help='begin this share of the episodes with the hand beside the thing, closed or on its way '
                             'down, so that the data shows how to put that right (default: 0)')
    parser.add_argument('--still-cameras', action='store_true',
                        help='cameras exactly where the contract has them; else a little elsewhere in every episode')
    add_shared(parser)
    return parser


if __name__ == '__main__':
    sys.exit(main())
