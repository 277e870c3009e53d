"""Defaults of ``make demo`` by its arguments."""

import json
from pathlib import Path

import pytest

from apt_demos.demo.arguments import DemoArguments
from apt_demos.demo.run import CUBES, TRIALS, with_defaults
from apt_policy.cli import UsageError, parse
from apt_policy.core.contract import load_contract

CONFIG = Path(__file__).resolve().parents[3] / 'apt_bringup' / 'config'
SMALL, PLAIN = 'aloha_small.yaml', 'aloha_sim.yaml'


@pytest.fixture
def weights(tmp_path):
    """Write a checkpoint folder with the given facts about its robot."""
    def write(described, folder=tmp_path / 'weights'):
        folder.mkdir(parents=True)
        (folder / 'checkpoint.json').write_text(json.dumps(described))
        return folder
    return write


def options_of(words):
    return with_defaults(parse(DemoArguments, words, program='demo'))


def choice(*words):
    options = options_of(words)
    return Path(options.contract).name, options.table


def facts_of(name):
    return {'contract': load_contract(CONFIG / name).policy_facts()}


def test_weights_of_the_small_robot_get_its_contract_and_the_table_of_rollouts(weights):
    assert choice('--checkpoint', str(weights(facts_of(SMALL)))) == (SMALL, TRIALS)


def test_a_run_is_its_newest_checkpoint(weights, tmp_path):
    weights(facts_of(SMALL), tmp_path / 'run' / 'iter_000200')
    weights(facts_of(PLAIN), tmp_path / 'run' / 'iter_000100')
    (tmp_path / 'run' / 'latest').write_text('iter_000200\n')
    assert choice('--checkpoint', str(tmp_path / 'run')) == (SMALL, TRIALS)


@pytest.mark.parametrize('described', [facts_of(PLAIN), {}, [], None, {'contract': None}])
def test_other_weights_get_the_plain_robot_and_its_cubes(weights, described):
    assert choice('--checkpoint', str(weights(described))) == (PLAIN, CUBES)


def test_untrained_weights_get_an_instruction():
    assert choice('--checkpoint', 'untrained') == (PLAIN, CUBES)
    assert options_of(['--checkpoint', 'untrained']).prompt == ('put the red cube into the white tray',)


def test_only_a_speed_that_was_asked_for_is_kept():
    assert options_of([]).speed is None and options_of(['--speed', '0.5']).speed == 0.5


def test_weights_of_the_old_place_are_those_of_the_new_one(weights, tmp_path):
    weights(facts_of(SMALL), tmp_path / 'apt_sim' / 'checkpoints' / 'mine')
    assert choice('--checkpoint', str(tmp_path / 'apt_bringup' / 'checkpoints' / 'mine')) == (SMALL, TRIALS)


@pytest.mark.parametrize(('words', 'message'), [
    (['--seconds', '0'], '--seconds is 0; expected 1 to 3600'), (['--speed', '2'], '--speed is 2; expected 0.1 to 1'),
    (['--prompt', ' '], '--prompt is empty'), (['--scene', '-1'], '--scene is -1; expected 0 to')])
def test_what_cannot_be_used_is_named(words, message):
    with pytest.raises(UsageError, match=message):
        options_of(words)
