"""Output folders belong to the configuration that they were begun with."""

import pytest

from apt_training.bulk.output_folder import OutputFolderError, prepare_output_folder


def test_a_folder_belongs_to_its_settings(tmp_path):
    prepare_output_folder(tmp_path, {'seed': 0})
    prepare_output_folder(tmp_path, {'seed': 0})
    with pytest.raises(OutputFolderError, match='was made with seed = 0, these settings have 1'):
        prepare_output_folder(tmp_path, {'seed': 1})


@pytest.mark.parametrize('name', ['x.h5', 'photographs'])
def test_a_folder_of_something_else_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(OutputFolderError, match=r'is not empty and has no generation\.json'):
        prepare_output_folder(tmp_path, {'seed': 0})
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_hidden_files_do_not_count(tmp_path):
    (tmp_path / '.directory').touch()
    prepare_output_folder(tmp_path, {'seed': 0})
    prepare_output_folder(tmp_path, {'seed': 0})


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(OutputFolderError, match='cannot write to'):
        prepare_output_folder(tmp_path / 'file', {'seed': 0})
