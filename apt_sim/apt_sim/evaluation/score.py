"""What trials amount to: success per split with its interval, as a table and as JSON."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from apt_policy.core.atomic import write_text
from apt_sim.evaluation.evaluate import TrialResult

_Z95 = 1.959963984540054
_SHARES = ('success', 'low', 'high', 'approached')


@dataclass(frozen=True, kw_only=True)
class Score:
    """Success on one split."""

    episodes: int
    success: float
    """Share of the episodes."""
    low: float
    """95 % interval (Wilson)."""
    high: float
    approached: float
    """Share in which a hand came nearer to the object that was asked for than to any other."""


def wilson(successes: int, episodes: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, JASA 22, 1927).

    Raises:
        ValueError: no episodes.
    """
    if episodes < 1:
        raise ValueError('a share needs at least one episode')
    share, squared = successes / episodes, _Z95**2
    middle = (share + squared / (2 * episodes)) / (1 + squared / episodes)
    half = _Z95 * np.sqrt(share * (1 - share) / episodes + squared / (4 * episodes**2)) / (1 + squared / episodes)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def scores(results: Sequence[TrialResult]) -> dict[str, Score]:
    """By split, in the order in which they first come when sorted by number."""
    by_split: defaultdict[str, list[TrialResult]] = defaultdict(list)
    for result in results:
        by_split[result.split].append(result)
    found = {}
    for split, group in by_split.items():
        successes = sum(result.success for result in group)
        low, high = wilson(successes, len(group))
        found[split] = Score(episodes=len(group), success=successes / len(group), low=low, high=high,
                             approached=sum(result.approached for result in group) / len(group))
    return found


def write_json(found: Mapping[str, Score], path: Path) -> None:
    """``{split: {episodes, success, low, high, approached}}``, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    fields = {split: {'episodes': score.episodes, **{name: round(getattr(score, name), 6) for name in _SHARES}}
              for split, score in found.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(fields, indent=2, sort_keys=True) + '\n')


def table(results: Sequence[TrialResult], wanted: Mapping[str, int] | None = None) -> Table:
    """Success, interval and the commonest failures of each split.

    Args:
        results: of the trials that were done.
        wanted: how many trials each split should have had, by its name; None: as many as were done.
    """
    found = scores(results)
    wanted = wanted or {split: score.episodes for split, score in found.items()}
    shown = Table(title=f'{len(results)} trials')
    for heading, justify in (('split', 'left'), ('episodes', 'right'), ('success', 'right'), ('95 %', 'right'),
                             ('went to it', 'right'), ('failures', 'left')):
        shown.add_column(heading, justify='left' if justify == 'left' else 'right')
    for split, planned in wanted.items():
        score = found.get(split)
        if score is None:
            shown.add_row(split, f'0 of {planned}', '', '', '', '')
            continue
        kinds = Counter(result.failure for result in results if result.split == split and result.failure)
        failures = ', '.join(f'{count} {kind.value}' for kind, count in kinds.most_common(3))
        done = str(planned) if score.episodes == planned else f'{score.episodes} of {planned}'
        shown.add_row(split, done, f'{100 * score.success:.0f} %', f'{100 * score.low:.0f} .. {100 * score.high:.0f} %',
                      f'{100 * score.approached:.0f} %', failures)
    return shown


def shares(results: Sequence[TrialResult]) -> dict[str, float]:
    """Parts of the time of all trials, by what it was spent on; ``other`` is the rest."""
    spent: Counter[str] = Counter()
    for result in results:
        spent.update(result.spent_s)
    everything = spent.pop('all', 0.0)
    if not everything:
        return {}
    parts = {what: seconds / everything for what, seconds in spent.most_common()}
    return {**parts, 'other': max(0.0, 1.0 - sum(parts.values()))}
