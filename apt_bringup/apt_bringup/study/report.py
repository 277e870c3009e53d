"""What the study came to: a table and a plot, from the scores of its policies."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from apt_bringup.study.plan import Sizes, Variant, score_file
from apt_bringup.trials.score import wilson

_WIDTH = 0.26


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One variant on one split, over all seeds."""

    episodes: int
    """Of all seeds together."""
    success: float
    low: float
    """95 % interval (Wilson) as if all episodes were one policy's."""
    high: float
    by_seed: tuple[float, ...]
    """Success of each seed's policy: how much of a difference is chance of training."""
    approached: float
    """Share in which a hand came nearest to the object that was asked for."""


Results = Mapping[Variant, Mapping[str, Cell]]


def collect(out: Path, sizes: Sizes) -> Results:
    """Read all scores.

    Raises:
        OSError, ValueError, KeyError: a file is missing or damaged.
    """
    found = {variant: [json.loads(score_file(out, sizes, variant, seed).read_text()) for seed in range(sizes.seeds)]
             for variant in Variant}
    return {variant: {split: _cell([score[split] for score in scores]) for split in sizes.splits}
            for variant, scores in found.items()}


def write_results(results: Results, folder: Path) -> tuple[Path, Path, Path]:
    """``study.json``, ``study.md`` and ``study.png`` in ``folder``."""
    files = folder / 'study.json', folder / 'study.md', folder / 'study.png'
    files[0].write_text(json.dumps({variant.value: {split: vars(cell) for split, cell in cells.items()}
                                    for variant, cells in results.items()}, indent=2) + '\n')
    files[1].write_text(markdown(results))
    _draw(results).savefig(files[2], dpi=120)
    return files


def table(results: Results) -> Table:
    """For the terminal."""
    shown = Table(title='success in closed loop, 95 % interval; in brackets: the right object approached')
    splits = tuple(next(iter(results.values())))
    for heading in ('', *splits):
        shown.add_column(heading)
    for variant, cells in results.items():
        shown.add_row(variant.words, *(_words(cells[split]) for split in splits))
    return shown


def markdown(results: Results) -> str:
    """For the docs."""
    splits = tuple(next(iter(results.values())))
    lines = [f'| | {" | ".join(splits)} |', f'|---|{"---|" * len(splits)}']
    lines += [f'| {variant.words} | {" | ".join(_words(cells[split]) for split in splits)} |'
              for variant, cells in results.items()]
    return '\n'.join(lines) + '\n'


def _cell(scores: Sequence[Mapping[str, float]]) -> Cell:
    episodes = [int(score['episodes']) for score in scores]
    successes = sum(round(score['success'] * count) for score, count in zip(scores, episodes, strict=True))
    low, high = wilson(successes, sum(episodes))
    return Cell(episodes=sum(episodes), success=successes / sum(episodes), low=low, high=high,
                by_seed=tuple(score['success'] for score in scores),
                approached=float(np.mean([score['approached'] for score in scores])))


def _words(cell: Cell) -> str:
    seeds = ', '.join(f'{100 * share:.0f}' for share in cell.by_seed)
    return (f'{100 * cell.success:.0f} % ({100 * cell.low:.0f} .. {100 * cell.high:.0f}; seeds {seeds}) '
            f'[{100 * cell.approached:.0f} %]')


def _draw(results: Results) -> Figure:
    splits = tuple(next(iter(results.values())))
    figure = Figure(figsize=(2.0 + 1.8 * len(splits), 4.0), layout='constrained')
    axes = figure.add_subplot()
    for row, (variant, cells) in enumerate(results.items()):
        at = np.arange(len(splits)) + (row - (len(results) - 1) / 2) * _WIDTH
        shown = [cells[split] for split in splits]
        heights = np.array([cell.success for cell in shown])
        spread = np.abs(np.array([[cell.low, cell.high] for cell in shown]).T - heights)
        axes.bar(at, heights, _WIDTH * 0.9, yerr=spread, capsize=3, label=variant.words, alpha=0.85)
        for x, cell in zip(at, shown, strict=True):
            axes.plot([x] * len(cell.by_seed), cell.by_seed, 'k.', markersize=4)
    axes.set_xticks(range(len(splits)), splits)
    axes.set_ylim(0, 1)
    axes.set_ylabel('success in closed loop')
    axes.legend()
    return figure
