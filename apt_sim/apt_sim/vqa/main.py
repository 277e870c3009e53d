"""``apt-sim-questions``: pictures of the table and conversations about them, to teach a vision-language model with.

    apt-sim-questions --sheets 400 --out data/questions

The same settings give the same bytes, whatever the number of jobs; a run that was broken off goes on at the
first sheet that is missing.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from apt_policy.console import print_error
from apt_policy.core.contract import ContractError
from apt_sim.options import add_contract, contract_path, natural, positive
from apt_sim.vqa.generate import QuestionSettings, SheetWriter, sheet_folder
from apt_training.bulk.folder import FolderError, claim
from apt_training.bulk.pool import Crew, CrewError, Done


def main(words: Sequence[str] | None = None) -> int:
    """Generate; the exit status: 0 if every sheet is there, 130 if interrupted, else 1 or 2."""
    console = Console(stderr=True)
    options = _parser().parse_args(words)
    try:
        settings = QuestionSettings(contract=contract_path(options.contract), seed=options.seed)
        claim(options.out, settings.facts())
    except (ContractError, FolderError) as error:
        print_error(console, f'apt-sim-questions: {error}')
        return 2
    todo = [number for number in range(options.sheets) if not sheet_folder(options.out, number).exists()]
    began_s = time.monotonic()
    try:
        lost = _write(settings, options.out, todo, options.jobs, console)
    except CrewError as error:
        print_error(console, f'apt-sim-questions: {error}')
        return 1
    except KeyboardInterrupt:
        console.print('apt-sim-questions: interrupted; sheets that are whole stay. The same command goes on.')
        return 130
    console.print(f'{options.sheets - len(lost)} sheets of {settings.scenes} scenes in {options.out}, '
                  f'{len(todo)} of them new, {time.monotonic() - began_s:.0f} s', markup=False,
                  highlight=False, soft_wrap=True)
    for words_of_loss in lost:
        print_error(console, f'apt-sim-questions: {words_of_loss}')
    return 1 if lost else 0


def _write(settings: QuestionSettings, out: Path, todo: Sequence[int], jobs: int, console: Console) -> list[str]:
    """What was lost, in words."""
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    lost = []
    with Progress(*columns, console=console) as progress, Crew(partial(SheetWriter, settings, out), jobs) as crew:
        bar = progress.add_task('sheets', total=len(todo))
        for outcome in crew.do(todo):
            if not isinstance(outcome, Done):
                lost.append(f'sheet {outcome.number}: {outcome.reason}; run the same command to try it again')
            progress.update(bar, advance=1)
    return lost


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='apt-sim-questions',
                                     description='Questions about pictures of the simulated table, with answers.')
    parser.add_argument('--sheets', type=positive, required=True, help='how many the folder shall hold, of 50 scenes')
    parser.add_argument('--out', type=Path, required=True, help='folder of the sheets')
    parser.add_argument('--seed', type=natural, default=0, help='of all scenes (default: 0)')
    add_contract(parser)
    return parser


if __name__ == '__main__':
    sys.exit(main())
