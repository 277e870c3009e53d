"""Known scores give the known tables."""

import io
import json
from dataclasses import replace

import cv2
import pytest
from rich.console import Console
from scipy.stats import binomtest

from apt_demos.study.plan import QUICK, Variant, score_file
from apt_demos.study.report import load_results, markdown, tables, write_results

SIZES = replace(QUICK, skills='pick', seeds=2)
# By variant and split: successes of 20 rollouts of each seed, and rates of reaching the target object.
KNOWN = {
    Variant.ONE_STAGE: {'seen': ((4, 8), (0.5, 0.7)), 'unseen_object': ((0, 0), (0.2, 0.1)),
                        'unseen_wording': ((2, 2), (0.3, 0.3))},
    Variant.TWO_STAGES: {'seen': ((10, 15), (0.9, 1.0)), 'unseen_object': ((3, 1), (0.3, 0.5)),
                         'unseen_wording': ((9, 10), (0.6, 0.6))},
    Variant.FROZEN_PRIOR: {'seen': ((20, 20), (1.0, 1.0)), 'unseen_object': ((7, 7), (0.4, 0.6)),
                           'unseen_wording': ((11, 9), (0.8, 1.0))}}


@pytest.fixture
def scores(tmp_path):
    """Write a folder of scores as ``apt-sim-eval --json`` does."""
    for variant, splits in KNOWN.items():
        for seed in range(2):
            file = score_file(tmp_path, SIZES, variant, seed)
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps({split: {
                'episodes': 20, 'success': successes[seed] / 20, 'low': 0.0, 'high': 1.0, 'approached': shares[seed]}
                for split, (successes, shares) in splits.items()}))
    return tmp_path


def test_seeds_are_counted_together_and_shown_apart(scores):
    results = load_results(scores, SIZES)
    for variant, splits in KNOWN.items():
        for split, (successes, shares) in splits.items():
            cell = results[variant][split]
            assert cell.episodes == 40
            assert cell.success.by_seed == tuple(count / 20 for count in successes)
            assert cell.approached.by_seed == shares
            for found, total in ((cell.success, sum(successes)), (cell.approached, round(20 * sum(shares)))):
                interval = binomtest(total, 40).proportion_ci(0.95, method='wilson')
                assert found.share == pytest.approx(total / 40)
                assert (found.low, found.high) == (pytest.approx(interval.low, abs=1e-6),
                                                   pytest.approx(interval.high, abs=1e-6))


def test_the_tables_for_the_docs_are_these(scores):
    assert markdown(load_results(scores, SIZES)) == (
        '| success | seen | unseen_object | unseen_wording |\n'
        '|---|---|---|---|\n'
        '| one stage | 30 % (18 .. 45; seeds 20, 40) | 0 % (0 .. 9; seeds 0, 0) | 10 % (4 .. 23; seeds 10, 10) |\n'
        '| two stages (APT) | 62 % (47 .. 76; seeds 50, 75) | 10 % (4 .. 23; seeds 15, 5) '
        '| 48 % (33 .. 63; seeds 45, 50) |\n'
        '| two stages, prior frozen | 100 % (91 .. 100; seeds 100, 100) | 35 % (22 .. 50; seeds 35, 35) '
        '| 50 % (35 .. 65; seeds 55, 45) |\n'
        '\n'
        '| went to the right object | seen | unseen_object | unseen_wording |\n'
        '|---|---|---|---|\n'
        '| one stage | 60 % (45 .. 74; seeds 50, 70) | 15 % (7 .. 29; seeds 20, 10) '
        '| 30 % (18 .. 45; seeds 30, 30) |\n'
        '| two stages (APT) | 95 % (83 .. 99; seeds 90, 100) | 40 % (26 .. 55; seeds 30, 50) '
        '| 60 % (45 .. 74; seeds 60, 60) |\n'
        '| two stages, prior frozen | 100 % (91 .. 100; seeds 100, 100) | 50 % (35 .. 65; seeds 40, 60) '
        '| 90 % (77 .. 96; seeds 80, 100) |\n')


def test_the_tables_for_the_terminal_say_the_same(scores):
    results, shown = load_results(scores, SIZES), io.StringIO()
    Console(file=shown, width=250).print(*tables(results))
    said = [[cell.strip() for cell in line.split('│')[1:-1]] for line in shown.getvalue().splitlines() if '│' in line]
    written = [[cell.strip() for cell in line.split('|')[1:-1]] for line in markdown(results).splitlines()
               if line.startswith(('| one', '| two'))]
    assert said == written


def test_results_are_written_for_programs_for_the_docs_and_for_eyes(scores):
    results = load_results(scores, SIZES)
    data, text, picture = write_results(results, scores)
    assert text.read_text() == markdown(results)
    read = json.loads(data.read_text())
    assert read['two_stages']['seen']['success']['by_seed'] == [0.5, 0.75]
    assert read['one_stage']['unseen_object']['approached']['share'] == pytest.approx(0.15)
    assert set(read) == {'one_stage', 'two_stages', 'frozen_prior'}
    assert cv2.imread(str(picture)).std() > 10


def test_a_missing_score_is_an_error(scores):
    score_file(scores, SIZES, Variant.TWO_STAGES, 1).unlink()
    with pytest.raises(FileNotFoundError, match=r'two_stages_1\.json'):
        load_results(scores, SIZES)


def test_a_split_without_scores_is_an_error(scores):
    with pytest.raises(KeyError, match='unseen_container'):
        load_results(scores, replace(SIZES, skills='pick,place'))
