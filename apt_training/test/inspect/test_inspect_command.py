import sys

import cv2
import pytest

from apt_training.episodes.episode import ImageStorage, Subtask
from apt_training.inspect.main import main


@pytest.fixture
def episode(write_episode, tmp_path):
    write_episode(tmp_path / 'episode.h5', desired=True, mask=True)
    return tmp_path / 'episode.h5'


def error_text(capsys):
    """Return stderr, after checking that it is a message and no traceback."""
    text = capsys.readouterr().err
    assert text.startswith('apt-inspect: ') and 'Traceback' not in text
    return text


def test_a_summary_says_what_is_in_the_file(episode, capsys):
    assert main([str(episode)]) == 0
    shown = capsys.readouterr().out
    for part in ('pick the cube', 'take the cube', '12, 1.10 s at 10 Hz', 'left', 'right', 'high', 'wrist', '48x32',
                 'jpeg', 'reached z', 'check the images with --png'):
        assert part in shown


@pytest.mark.parametrize('storage', ImageStorage)
def test_every_storage_is_told(write_episode, tmp_path, capsys, storage):
    write_episode(tmp_path / 'episode.h5', storage=storage)
    assert main([str(tmp_path / 'episode.h5')]) == 0
    assert f' {storage.value} ' in capsys.readouterr().out


def test_subtasks_and_the_arms_to_learn_from_are_told(write_episode, tmp_path, capsys):
    write_episode(tmp_path / 'episode.h5', changes={
        'subtasks': (Subtask(start=0, description='reach'), Subtask(start=6, description='lift')), 'ee_indices': (1,)})
    assert main([str(tmp_path / 'episode.h5')]) == 0
    shown = capsys.readouterr().out
    assert 'from frame 6: lift' in shown and 'learn from' in shown


def test_one_frame_is_shown_with_its_numbers(episode, capsys):
    assert main([str(episode), '--show', '3']) == 0
    shown = capsys.readouterr().out
    assert 'frame 3 of 0 .. 11' in shown and 'stamp 100.300000 s' in shown and 'commanded left' in shown
    assert 'fx 50.0 fy 51.0' in shown


def test_a_picture_and_a_recording_are_written(episode, tmp_path, capsys):
    assert main([str(episode), '--png', str(tmp_path / 'out/a.png'), '--rerun', str(tmp_path / 'out/a.rrd')]) == 0
    assert cv2.imread(str(tmp_path / 'out/a.png')) is not None
    recording = (tmp_path / 'out/a.rrd').read_bytes()
    assert recording.startswith(b'RRF')
    # 12 JPEG images of two cameras and the paths of both arms are in it, by their names.
    for name in (b'world/high/image', b'world/left/path', b'gripper/right/commanded'):
        assert name in recording
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['a.png', 'a.rrd']


def test_without_rerun_the_message_says_what_to_install(episode, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'rerun', None)
    assert main([str(episode), '--rerun', str(tmp_path / 'a.rrd')]) == 2
    assert 'pip install "rerun-sdk>=0.23"' in error_text(capsys)
    assert not (tmp_path / 'a.rrd').exists()


def test_a_folder_is_searched_and_can_be_drawn_as_a_sheet(episode, write_episode, tmp_path, capsys):
    write_episode(tmp_path / 'more/second.h5')
    assert main([str(tmp_path), '--sheet', str(tmp_path / 'sheet.png')]) == 0
    assert cv2.imread(str(tmp_path / 'sheet.png')) is not None
    assert main([str(tmp_path)]) == 0
    assert 'second.h5' in capsys.readouterr().out


def test_a_bad_file_among_good_ones_costs_the_status_and_not_the_others(episode, tmp_path, capsys):
    (tmp_path / 'a_bad.h5').write_text('not an episode')
    assert main([str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert 'episode.h5' in shown.out and 'a_bad.h5' in shown.err and 'Traceback' not in shown.err


@pytest.mark.parametrize(('words', 'says'), [
    (['{folder}/nothing.h5'], 'nothing.h5 does not exist'), (['{folder}/empty'], 'has no episode file'),
    (['{folder}', '{folder}', '--png', 'x.png'], '--png is for one episode, got 2'),
    (['{folder}/episode.h5', '--show', '12'], 'has no frame 12, expected 0 .. 11'),
    (['{folder}/episode.h5', '--show', '-1'], 'has no frame -1, expected 0 .. 11'),
    (['{folder}/episode.h5', '--png', '/proc/nowhere/x.png'], '/proc/nowhere')])
def test_mistakes_are_named(episode, tmp_path, capsys, words, says):
    (tmp_path / 'empty').mkdir()
    assert main([word.format(folder=tmp_path) for word in words]) == 2
    assert says in error_text(capsys)
