"""Conversations are read as they were written, and what is wrong with them is named."""

import json

import cv2
import numpy as np
import pytest

from apt_training.vlm_finetune.conversations import ConversationDataset, ConversationError


def test_the_conversations_of_a_folder_are_those_of_its_sheets_in_their_order(write_sheet, tmp_path):
    for number in (1, 0):
        write_sheet(tmp_path / f'sheet_{number}', count=2 + number)
    read = ConversationDataset([tmp_path])
    assert len(read) == 5
    assert [one.images[0].parent.name for one in map(read.__getitem__, range(5))] == ['sheet_0'] * 2 + ['sheet_1'] * 3
    assert read.words == ('bar', 'blue', 'cube', 'cup', 'green', 'red')
    assert len(ConversationDataset([tmp_path / 'sheet_1', tmp_path / 'sheet_0'])) == 5


def test_pictures_come_red_first(write_sheet, tmp_path):
    write_sheet(tmp_path / 'sheet', count=1)
    bgr = np.zeros((64, 64, 3), np.uint8)
    bgr[..., 2] = 200
    cv2.imwrite(str(tmp_path / 'sheet' / '000_1.png'), bgr)
    pictures = ConversationDataset([tmp_path])[0].load_images()
    assert pictures.shape == (2, 64, 64, 3) and pictures.dtype == np.uint8
    assert np.all(pictures[1] == (200, 0, 0))


def test_a_folder_that_is_being_written_is_skipped(write_sheet, tmp_path):
    write_sheet(tmp_path / 'sheet', count=2)
    partial = tmp_path / '.sheet_00001.t77.p77.partial'
    partial.mkdir()
    (partial / 'conversations.jsonl').write_text('{"images": ["0')
    assert len(ConversationDataset([tmp_path])) == 2


def test_a_folder_without_conversations_is_named(tmp_path):
    with pytest.raises(ConversationError, match=r'no conversations\.jsonl in .*; apt-sim-vqa writes such'):
        ConversationDataset([tmp_path])


@pytest.mark.parametrize(('change', 'expected'), [
    (lambda line, say: {'images': [], 'marks': []}, '0 images are listed, the messages contain 2'),
    (lambda line, say: {'images': ['a.png'], 'marks': [{}]}, '1 images are listed, the messages contain 2'),
    (lambda line, say: {'marks': [{}]}, '2 images are listed, 1 have marks'),
    (lambda line, say: {'places': [{}]}, '2 images have marks, 1 have places'),
    (lambda line, say: {'meant': ['red cube']}, 'there are 2 questions, 1 entries of meant'),
    (lambda line, say: {'places': [], 'meant': [None, None]}, 'and 0 of places; expected one of meant for each'),
    (lambda line, say: {'places': [{'red cube': [0.1, 0.2]}, {}]}, "'red cube' is at .*expected three finite"),
    (lambda line, say: {'places': [{'red cube': [0.1, 0.2, float('nan')]}, {}]}, 'expected three finite numbers'),
    (lambda line, say: {'messages': []}, 'expected user and assistant alternately'),
    (lambda line, say: {'messages': line['messages'][:3]}, 'expected user and assistant alternately'),
    (lambda line, say: {'messages': line['messages'][::-1]}, r"roles are \['assistant', 'user'"),
    (lambda line, say: {'messages': [say('user', None, None), {'role': 'assistant', 'content': 'x1'}]},
     'a field has the wrong type'),
    (lambda line, say: {'messages': [{'role': 'user'}, say('assistant', 'x1')]}, "field 'content' is missing")])
def test_a_malformed_line_is_named_with_its_file(write_sheet, line, message, tmp_path, change, expected):
    lines = [line(0), {**line(1), **change(line(1), message)}, line(2)]
    write_sheet(tmp_path / 'sheet', lines=lines)
    with pytest.raises(ConversationError, match=rf'sheet/conversations\.jsonl, line 2: .*{expected}'):
        ConversationDataset([tmp_path])


def test_a_line_that_is_no_json_is_named(write_sheet, line, tmp_path):
    file = write_sheet(tmp_path / 'sheet', lines=[line(0)]) / 'conversations.jsonl'
    file.write_text(file.read_text() + '{"images": \n')
    with pytest.raises(ConversationError, match=r'conversations\.jsonl, line 2: not JSON'):
        ConversationDataset([tmp_path])
    file.write_text(json.dumps(['images']) + '\n')
    with pytest.raises(ConversationError, match=r'conversations\.jsonl, line 1: .*expected \{"images"'):
        ConversationDataset([tmp_path])


@pytest.mark.parametrize('field', ['marks', 'places', 'meant'])
def test_marks_places_or_targets_in_some_conversations_only_are_refused(field, write_sheet, line, tmp_path):
    write_sheet(tmp_path / 'sheet', lines=[line(0), line(1, **{field: False})])
    with pytest.raises(ConversationError, match=f'only some conversations in .* have {field}; expected all or none'):
        ConversationDataset([tmp_path])


def test_a_picture_that_is_missing_corrupt_or_of_another_size_is_named(write_sheet, tmp_path):
    sheet = write_sheet(tmp_path / 'sheet', count=3)
    (sheet / '000_1.png').unlink()
    (sheet / '001_0.png').write_bytes(b'junk')
    cv2.imwrite(str(sheet / '002_1.png'), np.zeros((32, 32, 3), np.uint8))
    read = ConversationDataset([sheet])
    with pytest.raises(ConversationError, match=r'000_1\.png is missing or not an image'):
        read[0].load_images()
    with pytest.raises(ConversationError, match=r'001_0\.png is missing or not an image'):
        read[1].load_images()
    with pytest.raises(ConversationError, match=r'\(32, 32, 3\), \(64, 64, 3\).*squares of one size'):
        read[2].load_images()


def test_pictures_that_are_not_square_are_refused(write_sheet, tmp_path):
    sheet = write_sheet(tmp_path / 'sheet', count=1, pictures=1)
    cv2.imwrite(str(sheet / '000_0.png'), np.zeros((32, 64, 3), np.uint8))
    with pytest.raises(ConversationError, match=r'\(32, 64, 3\).*squares of one size'):
        ConversationDataset([sheet])[0].load_images()
