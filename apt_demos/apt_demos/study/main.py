"""``make study``: one stage, two stages, two stages with a frozen prior, compared on what they were never told.

Runs the suite's own commands on the CPU, one a core. A step that is done is not done again; Ctrl-C ends the steps that
run, policies save as they stop, and the next start goes on there.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from rich.console import Console

from apt_demos.steps.runner import Runner
from apt_demos.steps.step import named
from apt_demos.study.plan import FULL, QUICK, Setting, Sizes, steps
from apt_demos.study.report import collect, tables, write_results
from apt_policy.console import print_error
from apt_policy.core.shipped import shipped_contract
from apt_policy.core.stop import stop_requests
from apt_sim.options import positive
from apt_training.bulk.folder import claim

_MEANING = {'skills': 'separated by commas; the splits that need others are left out; '}
# Steps share the machine by cores; a GPU would be taken by one part of them and not by another.
_ENVIRONMENT = {'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}


def main(words: Sequence[str] | None = None) -> int:
    """Run it.

    Returns:
        0 when every step is done, 130 on Ctrl-C, 2 for arguments that cannot be used, else 1.
    """
    options = _options(words)
    console = Console()
    out = options.out or Path('out/study_quick' if options.quick else 'out/study')
    try:
        contract = shipped_contract('aloha_small.yaml')
        sizes = _sizes(options)
        setting = Setting(out=out, contract=contract, sizes=sizes, own_vlm=options.vlm, own_data=tuple(options.data))
        chosen = named(options.only, steps(setting, jobs=options.jobs))
        claim(out, setting.facts())
    except ValueError as error:
        print_error(console, f'study: {error}')
        return 2
    with stop_requests() as stop:
        runner = Runner('study', out, console, stop, jobs=options.jobs, environment=_ENVIRONMENT)
        status = runner.run(chosen)
    if status or options.only:
        return status
    results = collect(out, sizes)
    console.print(*tables(results))
    if options.quick:
        runner.say(f'This was the quick form: {sizes.iterations} iterations a stage, {sizes.trials} trials a split and '
                   'policy. It shows that everything runs; its differences are chance.')
    for path in write_results(results, out):
        runner.say(f'wrote {path}')
    return 0


def _sizes(options: argparse.Namespace) -> Sizes:
    given = {field.name: getattr(options, field.name) for field in fields(Sizes)}
    return replace(QUICK if options.quick else FULL,
                   **{name: value for name, value in given.items() if value is not None})


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='study', description=__doc__.splitlines()[0])
    parser.add_argument('--quick', action='store_true', help='small sizes: shows that it runs, and hardly more')
    parser.add_argument('--out', type=Path, help='folder of everything (default: out/study, out/study_quick)')
    parser.add_argument('--jobs', type=positive, default=len(os.sched_getaffinity(0)), metavar='N',
                        help='steps side by side (default: one a core)')
    parser.add_argument('--only', nargs='+', default=[], metavar='STEP', help='these steps and no others')
    parser.add_argument('--vlm', default='', metavar='NAME',
                        help='Qwen3-VL by hub name or folder, in place of a small one that is taught here')
    parser.add_argument('--data', nargs='+', default=[], metavar='FOLDER[=WEIGHT]',
                        help='demonstrations that are there already, in place of new ones')
    for field in fields(Sizes):
        name, kind = field.name, positive if field.type is int else str
        parser.add_argument(f'--{name}', type=kind, metavar='N' if kind is positive else None, help=(
            f'{_MEANING.get(name, "")}default: {getattr(FULL, name)}, quick {getattr(QUICK, name)}'))
    return parser.parse_args(words)


if __name__ == '__main__':
    sys.exit(main())
