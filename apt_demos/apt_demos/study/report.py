"""Results of the study: tables and a plot from the scores of its policies."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from apt_demos.study.plan import StudyConfig, Variant, score_file
from apt_sim.evaluation.score import wilson_interval

# Width of a bar; those of the three variants leave a gap between splits, which are 1 apart.
_WIDTH = 0.26


@dataclass(frozen=True, kw_only=True)
class PooledRate:
    """Success rate over the rollouts of all seeds."""

    share: float
    """Share of successful rollouts."""
    low: float
    """Lower end of the 95 % interval (Wilson) as if all rollouts were of one policy."""
    high: float
    """Upper end of that interval."""
    by_seed: tuple[float, ...]
    """Share of each seed; their spread shows the variance of training."""


@dataclass(frozen=True, kw_only=True)
class SplitResult:
    """Result of one variant on one split over all seeds; the field names are the keys of ``study.json``."""

    episodes: int
    """Number of rollouts of all seeds."""
    success: PooledRate
    """Rate of success."""
    approached: PooledRate
    """Rate at which a hand came nearest to the target object; a weaker criterion that is learned sooner."""


Results = Mapping[Variant, Mapping[str, SplitResult]]

_MEASURES: Mapping[str, Callable[[SplitResult], PooledRate]] = {
    'success': attrgetter('success'), 'went to the right object': attrgetter('approached')}


def load_results(out: Path, config: StudyConfig) -> Results:
    """Load the scores of all policies.

    Args:
        out: folder of the study.
        config: sizes of the study.

    Raises:
        OSError, ValueError, KeyError: a file is missing or damaged.
    """
    found = {variant: [json.loads(score_file(out, config, variant, seed).read_text()) for seed in range(config.seeds)]
             for variant in Variant}
    return {variant: {split: _cell([score[split] for score in scores]) for split in config.splits}
            for variant, scores in found.items()}


def write_results(results: Results, folder: Path) -> tuple[Path, Path, Path]:
    """Write ``study.json``, ``study.md`` and ``study.png`` to ``folder`` and return their paths."""
    files = folder / 'study.json', folder / 'study.md', folder / 'study.png'
    files[0].write_text(json.dumps({variant.value: {split: asdict(cell) for split, cell in cells.items()}
                                    for variant, cells in results.items()}, indent=2) + '\n')
    files[1].write_text(markdown(results))
    _draw(results).savefig(files[2], dpi=120)
    return files


def tables(results: Results) -> Iterator[Table]:
    """Yield the tables for the terminal."""
    for title, share_of in _MEASURES.items():
        shown = Table(title=title)
        for heading in ('', *_splits(results)):
            shown.add_column(heading)
        for variant, cells in results.items():
            shown.add_row(variant.words, *(_words(share_of(cell)) for cell in cells.values()))
        yield shown


def markdown(results: Results) -> str:
    """Return the tables in Markdown."""
    lines: list[str] = []
    for title, share_of in _MEASURES.items():
        splits = _splits(results)
        lines += [f'| {title} | {" | ".join(splits)} |', f'|---|{"---|" * len(splits)}']
        lines += [f'| {variant.words} | {" | ".join(_words(share_of(cell)) for cell in cells.values())} |'
                  for variant, cells in results.items()]
        lines.append('')
    return '\n'.join(lines)


def _cell(scores: Sequence[Mapping[str, float]]) -> SplitResult:
    episodes = [int(score['episodes']) for score in scores]
    return SplitResult(episodes=sum(episodes), success=_share([score['success'] for score in scores], episodes),
                       approached=_share([score['approached'] for score in scores], episodes))


def _share(by_seed: Sequence[float], episodes: Sequence[int]) -> PooledRate:
    total = sum(round(share * count) for share, count in zip(by_seed, episodes, strict=True))
    low, high = wilson_interval(total, sum(episodes))
    return PooledRate(share=total / sum(episodes), low=low, high=high, by_seed=tuple(by_seed))


def _splits(results: Results) -> tuple[str, ...]:
    return tuple(next(iter(results.values())))


def _words(share: PooledRate) -> str:
    seeds = ', '.join(f'{100 * each:.0f}' for each in share.by_seed)
    return f'{100 * share.share:.0f} % ({100 * share.low:.0f} .. {100 * share.high:.0f}; seeds {seeds})'


def _draw(results: Results) -> Figure:
    splits = _splits(results)
    figure = Figure(figsize=(2.0 + 1.8 * len(splits), 6.0), layout='constrained')
    for axes, (title, share_of) in zip(figure.subplots(len(_MEASURES), sharex=True), _MEASURES.items(), strict=True):
        for row, (variant, cells) in enumerate(results.items()):
            at = np.arange(len(splits)) + (row - (len(results) - 1) / 2) * _WIDTH
            shown = [share_of(cell) for cell in cells.values()]
            heights = np.array([share.share for share in shown])
            spread = np.abs(np.array([[share.low, share.high] for share in shown]).T - heights)
            axes.bar(at, heights, _WIDTH * 0.9, yerr=spread, capsize=3, label=variant.words, alpha=0.85)
            for x, share in zip(at, shown, strict=True):
                axes.plot([x] * len(share.by_seed), share.by_seed, 'k.', markersize=4)
        axes.set_xticks(range(len(splits)), splits)
        axes.set_ylim(0, 1)
        axes.set_ylabel(title)
    figure.axes[0].legend()
    return figure
