"""A folder belongs to what it was begun with."""

import pytest

from apt_training.bulk.folder import FolderError, claim


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
