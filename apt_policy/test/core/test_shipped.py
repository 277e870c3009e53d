"""Shipped contracts: found from anywhere, the installed one first."""

import importlib.util
import shutil

import pytest

from apt_policy.core import shipped
from apt_policy.core.contract import ContractError, load_contract
from apt_policy.core.shipped import share_folders, shipped_contract


def install(prefix, config, name='aloha.yaml'):
    """Make a prefix as a workspace installs it; returns the contract in it."""
    folder = prefix / 'share' / 'apt_bringup' / 'config'
    folder.mkdir(parents=True)
    return shutil.copy(config / name, folder / name)


def test_the_installed_contract_is_found_from_any_folder_and_the_first_workspace_wins(tmp_path, monkeypatch, config):
    first, second = (install(tmp_path / name, config) for name in ('overlay', 'underlay'))
    monkeypatch.chdir('/')
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'{tmp_path}/other:{tmp_path}/overlay:{tmp_path}/underlay')
    assert shipped_contract('aloha.yaml') == first != second
    assert load_contract(shipped_contract('aloha.yaml')).name == 'aloha'


def test_without_a_sourced_workspace_the_source_tree_serves(monkeypatch, config):
    monkeypatch.chdir('/')
    for value in ('', '/nowhere'):
        monkeypatch.setenv('AMENT_PREFIX_PATH', value)
        assert shipped_contract('aloha_small.yaml') == config / 'aloha_small.yaml'
    monkeypatch.delenv('AMENT_PREFIX_PATH')
    assert share_folders('apt_bringup') == [config.parent]


def test_a_prefix_that_lacks_the_file_does_not_hide_the_next(tmp_path, monkeypatch, config):
    install(tmp_path / 'old', config, 'aloha_sim.yaml')
    whole = install(tmp_path / 'new', config)
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'{tmp_path}/old:{tmp_path}/new')
    assert shipped_contract('aloha.yaml') == whole


def test_a_contract_that_does_not_ship_is_refused_with_where_it_was_looked_for(tmp_path, monkeypatch, config):
    install(tmp_path / 'ws', config)
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'{tmp_path}/ws')
    with pytest.raises(ContractError, match=rf'none\.yaml .*not found in {tmp_path}/ws/share/apt_bringup/config, .*'
                                            '; source .* or name a contract file with --contract'):
        shipped_contract('none.yaml')


def test_an_installed_module_without_a_sourced_workspace_says_what_to_do(tmp_path, monkeypatch):
    """As after an install without links, where no source tree lies around the module."""
    lonely = shutil.copy(shipped.__file__, tmp_path / 'shipped.py')
    spec = importlib.util.spec_from_file_location('lonely', lonely)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv('AMENT_PREFIX_PATH', '')
    with pytest.raises(ContractError, match='AMENT_PREFIX_PATH, which is empty; source the'):
        module.shipped_contract('aloha.yaml')
