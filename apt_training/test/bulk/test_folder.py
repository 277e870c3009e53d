"""A folder belongs to what it was begun with."""

import pytest

from apt_training.bulk.folder import FolderError, appearing, claim


def test_a_folder_belongs_to_its_settings(tmp_path):
    claim(tmp_path, {'seed': 0})
    claim(tmp_path, {'seed': 0})
    with pytest.raises(FolderError, match='was made with seed = 0, these settings have 1'):
        claim(tmp_path, {'seed': 1})


@pytest.mark.parametrize('name', ['x.h5', 'photographs'])
def test_a_folder_of_something_else_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(FolderError, match=r'not empty, and has no generation\.json that says what it is for'):
        claim(tmp_path, {'seed': 0})
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_hidden_files_make_no_folder_somebody_elses(tmp_path):
    (tmp_path / '.directory').touch()
    claim(tmp_path, {'seed': 0})
    claim(tmp_path, {'seed': 0})


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(FolderError, match='cannot use'):
        claim(tmp_path / 'file', {'seed': 0})


def test_a_folder_appears_whole_in_place_of_what_is_broken(tmp_path):
    target = tmp_path / 'bag'
    target.mkdir()
    (target / 'half').touch()
    (tmp_path / '.bag.7.partial').mkdir()
    with appearing(target) as fresh:
        fresh.mkdir(parents=True)
        (fresh / 'whole').touch()
        assert (target / 'half').exists() and fresh.name == 'bag'
    assert [file.name for file in target.iterdir()] == ['whole']
    assert [entry.name for entry in tmp_path.iterdir()] == ['bag'], 'what a killed process left is gone too'


def write_until_the_disk_is_full(target):
    with appearing(target) as fresh:
        fresh.mkdir(parents=True)
        (fresh / 'half').touch()
        raise OSError(28, 'full')


def test_a_folder_that_fails_leaves_nothing_and_spoils_nothing(tmp_path):
    (tmp_path / 'bag').mkdir()
    with pytest.raises(OSError, match='full'):
        write_until_the_disk_is_full(tmp_path / 'bag')
    assert [str(entry.relative_to(tmp_path)) for entry in tmp_path.rglob('*')] == ['bag']
