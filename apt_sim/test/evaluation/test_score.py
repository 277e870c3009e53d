"""Scores of rollouts."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from apt_sim.evaluation.evaluate import RolloutResult
from apt_sim.evaluation.score import score_splits, score_table, time_shares, wilson_interval, write_json
from apt_sim.evaluation.success_checker import FailureKind


def result(split, number, *, success, **spent):
    return RolloutResult(split=split, number=number, seed=0, instructions=('go',), success=success,
                         reached_target_object=success, failure=None if success else FailureKind.WRONG_OBJECT,
                         reason='' if success else 'lifted the red cube', duration_s=1.0, spent_s=spent)


@pytest.mark.parametrize(('successes', 'episodes'), [(0, 10), (8, 10), (10, 10), (1, 3), (173, 200)])
def test_the_interval_is_wilsons(successes, episodes):
    """The oracle is the closed form of Wilson, JASA 22, 1927."""
    share, squared = successes / episodes, 1.959963984540054**2
    middle = (share + squared / (2 * episodes)) / (1 + squared / episodes)
    half = np.sqrt(squared * share * (1 - share) / episodes + squared**2 / (4 * episodes**2)) / (1 + squared / episodes)
    assert wilson_interval(successes, episodes) == pytest.approx((middle - half, middle + half), abs=1e-9)


def test_no_episodes_have_no_share():
    with pytest.raises(ValueError, match='needs at least one'):
        wilson_interval(0, 0)


def test_the_file_has_the_agreed_form(tmp_path):
    results = [result('seen', k, success=k < 3) for k in range(4)]
    results += [result('composed', k, success=False) for k in range(2)]
    write_json(score_splits(results), tmp_path / 'new' / 'score.json')
    found = json.loads((tmp_path / 'new' / 'score.json').read_text())
    assert found['seen'] == {'episodes': 4, 'success': 0.75, 'low': pytest.approx(0.3006, abs=1e-4),
                             'high': pytest.approx(0.9544, abs=1e-4), 'approached': 0.75}
    assert found['composed']['success'] == 0.0 and list(found) == ['composed', 'seen']
    assert [file.name for file in (tmp_path / 'new').iterdir()] == ['score.json']


def test_time_is_shared_out_whole():
    parts = time_shares([result('seen', 0, success=True, all=4.0, inference=2.0, physics=1.0),
                    result('seen', 1, success=True, all=4.0, inference=4.0)])
    assert parts == {'inference': 0.75, 'physics': 0.125, 'other': 0.125}


def test_failures_are_counted_by_kind_however_they_are_worded():
    failed = result('seen', 0, success=False)
    late = replace(failed, failure=FailureKind.TIME_OVER)
    results = [failed, replace(failed, reason='took another one'), replace(late, reason='lifted too late'),
               result('seen', 1, success=True)]
    written = io.StringIO()
    Console(file=written, width=200).print(score_table(results))
    assert '2 wrong object, 1 not done in time' in written.getvalue()


def test_a_table_of_a_run_that_was_cut_short_says_how_many_of_how_many():
    written = io.StringIO()
    found = [result('seen', 0, success=True), result('seen', 1, success=True), result('train', 0, success=True)]
    Console(file=written, width=200).print(score_table(found, {'seen': 5, 'composed': 5, 'train': 1}))
    rows = {words[0]: words[1:4] for line in written.getvalue().splitlines()
            if (words := [cell.strip() for cell in line.split('│') if cell.strip()])}
    assert rows['seen'][:2] == ['2 of 5', '100 %'] and rows['composed'] == ['0 of 5'] and rows['train'][0] == '1'
