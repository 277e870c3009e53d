"""Scores of rollouts: success per split with its interval, as a table and as JSON."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from apt_policy.core.atomic import write_text
from apt_sim.evaluation.evaluate import RolloutResult


@dataclass(frozen=True, kw_only=True)
class Score:
    """Success rate on one split."""

    episodes: int
    """Number of rollouts."""
    success: float
    """Share of successful rollouts."""
    low: float
    """Lower end of the 95 % interval (Wilson) of the success rate."""
    high: float
    """Upper end of the 95 % interval (Wilson) of the success rate."""
    reached_target_object: float
    """Share of rollouts in which a hand came nearer to the target object than to any other."""


def wilson_interval(successes: int, episodes: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a success rate (Wilson, JASA 22, 1927).

    Raises:
        ValueError: ``episodes`` is below 1.
    """
    # Imported here because scipy.stats takes long to import, and most commands print no score.
    from scipy.stats import binomtest
    if episodes < 1:
        raise ValueError(f'episodes is {episodes}; a success rate needs at least one')
    interval = binomtest(successes, episodes).proportion_ci(confidence_level=0.95, method='wilson')
    return float(interval.low), float(interval.high)


def score_splits(results: Sequence[RolloutResult]) -> dict[str, Score]:
    """Return the score of each split, in the order of their first results."""
    by_split: defaultdict[str, list[RolloutResult]] = defaultdict(list)
    for result in results:
        by_split[result.split].append(result)
    found = {}
    for split, group in by_split.items():
        successes = sum(result.success for result in group)
        low, high = wilson_interval(successes, len(group))
        found[split] = Score(episodes=len(group), success=successes / len(group), low=low, high=high,
                             reached_target_object=sum(result.reached_target_object for result in group) / len(group))
    return found


def write_json(found: Mapping[str, Score], path: Path) -> None:
    """Write ``{split: {episodes, success, low, high, approached}}`` atomically.

    Raises:
        OSError: the file cannot be written.
    """
    fields = {split: {'episodes': score.episodes, 'success': round(score.success, 6), 'low': round(score.low, 6),
                      'high': round(score.high, 6), 'approached': round(score.reached_target_object, 6)}
              for split, score in found.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(fields, indent=2, sort_keys=True) + '\n')


def score_table(results: Sequence[RolloutResult], wanted: Mapping[str, int] | None = None) -> Table:
    """Return a table of success rate, interval and most frequent failures by split.

    Args:
        results: results of the finished rollouts.
        wanted: number of requested rollouts by split; None takes that of the finished ones.
    """
    found = score_splits(results)
    wanted = wanted or {split: score.episodes for split, score in found.items()}
    shown = Table(title=f'{len(results)} rollouts')
    for heading, justify in (('split', 'left'), ('episodes', 'right'), ('success', 'right'), ('95 %', 'right'),
                             ('reached object', 'right'), ('failures', 'left')):
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
                      f'{100 * score.reached_target_object:.0f} %', failures)
    return shown


def time_shares(results: Sequence[RolloutResult]) -> dict[str, float]:
    """Return the shares of wall-clock time by activity over all rollouts; ``other`` is the rest."""
    spent: Counter[str] = Counter()
    for result in results:
        spent.update(result.spent_s)
    everything = spent.pop('all', 0.0)
    if not everything:
        return {}
    parts = {what: seconds / everything for what, seconds in spent.most_common()}
    return {**parts, 'other': max(0.0, 1.0 - sum(parts.values()))}
