"""A folder belongs to what it was begun with."""

import pytest

from apt_bringup.bulk.folder import FolderError, claim


def test_a_folder_belongs_to_its_settings(tmp_path):
    claim(tmp_path, {'seed': 0})
    claim(tmp_path, {'seed': 0})
    with pytest.raises(FolderError, match='was made with seed = 0, these settings have 1'):
        claim(tmp_path, {'seed': 1})


def test_a_folder_that_does_not_say_how_its_episodes_were_made_is_refused(tmp_path):
    (tmp_path / 'x.h5').touch()
    with pytest.raises(FolderError, match=r'no generation\.json that says how they were made'):
        claim(tmp_path, {'seed': 0})


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(FolderError, match='cannot use'):
        claim(tmp_path / 'file', {'seed': 0})
