"""Old places of files, which are found for one more release."""

import pytest

from apt_policy.model.checkpoint import CheckpointError, read_checkpoint
from apt_policy.moved import current_checkpoint, current_vlm

WEIGHTS = 'checkpoints/aloha_small'


@pytest.mark.parametrize(('old', 'new'), [
    (f'apt_bringup/{WEIGHTS}', f'apt_sim/{WEIGHTS}'),
    (f'apt_bringup/{WEIGHTS}/vlm', f'apt_sim/{WEIGHTS}/vlm'),
    (f'install/apt_bringup/share/apt_bringup/{WEIGHTS}', f'install/apt_sim/share/apt_sim/{WEIGHTS}'),
    (f'install/share/apt_bringup/{WEIGHTS}', f'install/share/apt_sim/{WEIGHTS}'),
    (f'apt_bringup/share/apt_bringup/{WEIGHTS}', f'apt_bringup/share/apt_sim/{WEIGHTS}'),
    (f'apt_bringup/install/share/apt_bringup/{WEIGHTS}', f'apt_bringup/install/share/apt_sim/{WEIGHTS}'),
], ids=['repository', 'inside', 'isolated', 'merged', 'merged into a prefix of that name', 'workspace of that name'])
def test_a_checkpoint_of_the_old_place_is_found_at_the_new_one_which_is_said_once(old, new, tmp_path, capsys):
    (tmp_path / new).mkdir(parents=True)
    for _ in range(2):
        assert current_checkpoint(str(tmp_path / old)) == tmp_path / new
    assert capsys.readouterr().err == (
        f'{tmp_path / old} moved to {tmp_path / new}; the old place ends with release 0.3\n')


def test_a_relative_path_stays_relative(tmp_path, monkeypatch):
    (tmp_path / 'apt_sim' / WEIGHTS).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert str(current_checkpoint(f'apt_bringup/{WEIGHTS}')) == f'apt_sim/{WEIGHTS}'


def test_what_is_there_stays_where_it_is_and_says_nothing(tmp_path, capsys):
    for package in ('apt_bringup', 'apt_sim'):
        (tmp_path / package / WEIGHTS).mkdir(parents=True)
    for path in (tmp_path / 'apt_bringup' / WEIGHTS, tmp_path / 'none', tmp_path / 'checkpoints' / 'mine'):
        assert current_checkpoint(path) == path
    assert capsys.readouterr().err == ''


def test_weights_of_the_old_place_are_read_and_an_old_place_without_a_new_one_is_named(tmp_path):
    (tmp_path / 'apt_sim' / WEIGHTS).mkdir(parents=True)
    with pytest.raises(CheckpointError, match=f'{tmp_path}/apt_sim/{WEIGHTS} is not a complete checkpoint'):
        read_checkpoint(tmp_path / 'apt_bringup' / WEIGHTS)
    with pytest.raises(CheckpointError, match=f'there is no checkpoint at {tmp_path}/apt_bringup/checkpoints/gone'):
        read_checkpoint(tmp_path / 'apt_bringup' / 'checkpoints' / 'gone')


def test_a_vlm_is_found_at_its_new_place_and_a_hub_name_stays(tmp_path):
    (tmp_path / 'apt_sim' / 'checkpoints' / 'small' / 'vlm').mkdir(parents=True)
    old = tmp_path / 'apt_bringup' / 'checkpoints' / 'small' / 'vlm'
    assert current_vlm(str(old)) == str(tmp_path / 'apt_sim' / 'checkpoints' / 'small' / 'vlm')
    assert [current_vlm(name) for name in ('Qwen/Qwen3-VL-2B-Instruct', 'tiny', '')] == [
        'Qwen/Qwen3-VL-2B-Instruct', 'tiny', '']
