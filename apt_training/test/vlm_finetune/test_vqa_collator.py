"""Token ids are those of the conversation, and only its answers have labels."""

from pathlib import Path

import numpy as np
import pytest
import torch

from apt_policy.model.vlm.pixels import ImageSpec
from apt_policy.model.vlm.prompt import IMAGE_TOKEN
from apt_policy.model.vlm.tiny import tiny_tokenizer
from apt_training.vlm_finetune.conversations import Conversation, ConversationDataset, ConversationError
from apt_training.vlm_finetune.finetune import build_vlm_from_scratch, train_tokenizer
from apt_training.vlm_finetune.vqa_collator import (
    IGNORE_INDEX,
    MARKS,
    PLACES,
    QUESTION_TOKENS,
    TARGET_POSITIONS,
    TARGET_TOKENS,
    VqaCollator,
)

SIDE, TOKEN_SIDE = 64, 32
TARGETS = {QUESTION_TOKENS, TARGET_TOKENS, TARGET_POSITIONS}


@pytest.fixture(scope='module')
def dataset(write_sheet, tmp_path_factory):
    return ConversationDataset([write_sheet(tmp_path_factory.mktemp('lessons') / 'sheet', side=SIDE)])


@pytest.fixture(scope='module', params=['learned words', 'bytes'])
def tokenizer(request, dataset):
    return train_tokenizer(one.messages for one in dataset) if request.param == 'learned words' else tiny_tokenizer()


def answers_of(labels, tokenizer):
    """The texts of the runs of tokens that are to be learned."""
    is_answer = (labels != IGNORE_INDEX).int()
    edges = torch.diff(is_answer, prepend=torch.zeros(1), append=torch.zeros(1)).nonzero().flatten().tolist()
    return [tokenizer.decode(labels[begin:end]) for begin, end in zip(edges[::2], edges[1::2], strict=True)]


def test_exactly_the_answers_are_to_be_learned(dataset, tokenizer):
    batch = VqaCollator(tokenizer, ImageSpec())([dataset[index] for index in range(len(dataset))])
    for row, conversation in enumerate(dataset):
        said = [part['text'] for message in conversation.messages if message['role'] == 'assistant'
                for part in message['content']]
        assert answers_of(batch['labels'][row], tokenizer) == [f'{text}<|im_end|>\n' for text in said]
    asked = batch['labels'] != IGNORE_INDEX
    assert torch.equal(batch['labels'][asked], batch['input_ids'][asked])


def test_the_tokens_are_those_of_the_chat_format(dataset, tokenizer):
    ids = VqaCollator(tokenizer, ImageSpec())([dataset[0]])['input_ids'][0]
    text = tokenizer.apply_chat_template(list(dataset[0].messages), tokenize=False)
    assert tokenizer.decode(ids) == text.replace(IMAGE_TOKEN, IMAGE_TOKEN * (SIDE // TOKEN_SIDE) ** 2)


def test_every_picture_has_its_tokens_and_patches(dataset, tokenizer):
    batch = VqaCollator(tokenizer, ImageSpec())([dataset[0], dataset[1], dataset[2]])
    is_image = batch['input_ids'] == tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    assert is_image.sum(1).tolist() == [2 * 4] * 3
    assert torch.equal(batch['mm_token_type_ids'], is_image.int())
    assert batch['pixel_values'].shape == (6 * 16, 3 * 2 * 16 * 16)
    assert batch['image_grid_thw'].tolist() == [[1, 4, 4]] * 6


def test_other_conversations_of_a_batch_change_only_the_length(write_sheet, line, message, tmp_path):
    longer = line(1)
    longer['meant'] = [*longer['meant'], None]
    longer['messages'] = [*longer['messages'], message('user', 'and now?'), message('assistant', 'nothing')]
    read = ConversationDataset([write_sheet(tmp_path / 'sheet', lines=[line(0), longer])])
    collator = VqaCollator(tiny_tokenizer(), ImageSpec())
    alone, together = collator([read[0]]), collator([read[0], read[1]])
    length = int(together['attention_mask'][0].sum())
    assert length == alone['input_ids'].shape[1] < together['input_ids'].shape[1]
    for key in ('input_ids', 'labels'):
        assert torch.equal(together[key][0, :length], alone[key][0])
    assert torch.all(together['labels'][0, length:] == IGNORE_INDEX)


def test_a_mark_lands_on_the_token_that_shows_it(write_sheet, tmp_path):
    """The oracle is the picture itself: white where the mark is, black elsewhere."""
    collator = VqaCollator(tiny_tokenizer(), ImageSpec(), ['cube', 'red'])
    for row in range(4):
        for column in range(4):
            picture = np.zeros((1, 128, 128, 3), np.uint8)
            picture[:, 32 * row:32 * (row + 1), 32 * column:32 * (column + 1)] = 255
            shown = _Shown(images=(), messages=(), marks=({'red cube': [((column + 0.5) / 4, (row + 0.5) / 4)]},))
            looked = collator.collate_images([shown.with_pictures(picture)])
            bright = looked['pixel_values'].reshape(16, -1).mean(1) > 0
            assert looked[MARKS].shape == (16, 2) and torch.equal(looked[MARKS], bright[:, None].expand(16, 2))


def test_marks_of_all_pictures_follow_each_other_and_a_share_of_one_is_inside():
    collator = VqaCollator(tiny_tokenizer(), ImageSpec(), ['blue', 'cup', 'red'])
    pictures = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    one = _Shown(images=(), messages=(), marks=({'red cup': [(0.0, 0.0)]}, {'blue cup': [(1.0, 0.2), (0.1, 1.0)]}))
    other = _Shown(images=(), messages=(), marks=({}, {'black cat': [(0.5, 0.5)], 'red cat': [(0.6, 0.6)]}))
    marks = collator.collate_images([one.with_pictures(pictures), other.with_pictures(pictures)])[MARKS]
    assert marks.nonzero().tolist() == [[0, 1], [0, 2], [5, 0], [5, 1], [6, 0], [6, 1], [15, 2]]


def test_a_token_has_the_position_of_the_object_that_it_shows_most_of():
    collator = VqaCollator(tiny_tokenizer(), ImageSpec(), ['blue', 'cup', 'red'])
    marks = {'red cup': [(0.1, 0.1), (0.6, 0.1)], 'blue cup': [(0.6, 0.2), (0.7, 0.1)], 'blue cat': [(0.1, 0.9)]}
    shown = _Shown(images=(), messages=(), marks=(marks,), places=({'red cup': (1, 2, 3), 'blue cup': (4, 5, 6)},))
    places = collator.collate_images([shown.with_pictures(np.zeros((1, SIDE, SIDE, 3), np.uint8))])[PLACES]
    assert places[:2].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert places[2:].isnan().all(), 'what has no place, and what shows nothing'


def test_the_target_of_a_question_is_labelled_at_the_token_before_its_answer(dataset, tokenizer):
    rows = [dataset[4], dataset[2]]
    batch = VqaCollator(tokenizer, ImageSpec())(rows)
    assert batch[QUESTION_TOKENS].shape == (2, 2), 'of two questions each, the first means a thing'
    for (row, token), conversation in zip(batch[QUESTION_TOKENS].tolist(), rows, strict=True):
        assert batch['labels'][row, token] == IGNORE_INDEX != batch['labels'][row, token + 1]
        question = conversation.messages[0]['content'][-1]['text']
        assert tokenizer.decode(batch['input_ids'][row, :token + 1]).endswith(
            f'{question}<|im_end|>\n<|im_start|>assistant\n')
    assert batch[TARGET_POSITIONS].tolist() == [pytest.approx([0.4, 0.2, 0.3]), pytest.approx([0.2, 0.2, 0.3])]


def test_the_target_tokens_are_those_of_the_object_s_marks(dataset, tokenizer):
    batch = VqaCollator(tokenizer, ImageSpec())([dataset[4], dataset[2]])
    is_image = batch['input_ids'] == tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    assert not (batch[TARGET_TOKENS] & ~is_image).any()
    # Two pictures of two by two tokens; the mark of the one is at the top on the left, of the other on the right.
    of_pictures = [shown[image].tolist() for shown, image in zip(batch[TARGET_TOKENS], is_image, strict=True)]
    assert of_pictures == [[True, False, False, False] * 2, [False, True, False, False] * 2]


def test_a_target_outside_the_first_image_has_no_position():
    collator = VqaCollator(tiny_tokenizer(), ImageSpec())
    say = [{'role': 'user', 'content': [{'type': 'image'}] * 2 + [{'type': 'text', 'text': 'lift it'}]},
           {'role': 'assistant', 'content': [{'type': 'text', 'text': 'x1'}]}]
    shown = _Shown(images=(Path('0'), Path('1')), messages=tuple(say), marks=({}, {'red cup': [(0.9, 0.9)]}),
                   places=({}, {'red cup': (1, 2, 3)}), meant=('red cup',))
    batch = collator([shown.with_pictures(np.zeros((2, SIDE, SIDE, 3), np.uint8))])
    assert batch[TARGET_POSITIONS].isnan().all() and int(batch[TARGET_TOKENS].sum()) == 1


def test_questions_without_an_object_leave_empty_tensors(write_sheet, line, tmp_path):
    read = ConversationDataset([write_sheet(tmp_path / 'sheet', lines=[{**line(0), 'meant': [None, None]}])])
    batch = VqaCollator(tiny_tokenizer(), ImageSpec())([read[0]])
    assert (batch[QUESTION_TOKENS].shape, batch[TARGET_POSITIONS].shape) == ((0, 2), (0, 3))
    assert batch[TARGET_TOKENS].shape == (0, batch['input_ids'].shape[1])


def test_conversations_without_targets_have_no_attention_labels(write_sheet, tmp_path):
    read = ConversationDataset([write_sheet(tmp_path / 'sheet', count=1, meant=False)])
    assert not TARGETS & set(VqaCollator(tiny_tokenizer(), ImageSpec())([read[0]]))


def test_unmarked_pictures_have_no_marks(dataset):
    assert not {MARKS, PLACES} & set(VqaCollator(tiny_tokenizer(), ImageSpec()).collate_images([dataset[0]]))


def test_a_model_accepts_the_batch(dataset):
    tokenizer = train_tokenizer(one.messages for one in dataset)
    batch = VqaCollator(tokenizer, ImageSpec())([dataset[0], dataset[1]])
    with torch.no_grad():
        loss = build_vlm_from_scratch(tokenizer, 0)(**{key: batch[key] for key in batch if key not in TARGETS}).loss
    assert loss == pytest.approx(np.log(len(tokenizer)), rel=0.25), 'who has learned nothing guesses almost evenly'


def test_pictures_that_do_not_fit_are_refused(write_sheet, tmp_path):
    collator = VqaCollator(tiny_tokenizer(), ImageSpec())
    small, large, odd = (ConversationDataset([write_sheet(tmp_path / str(side), count=1, side=side)])[0]
                         for side in (64, 96, 48))
    with pytest.raises(ConversationError, match=r'images of \[64, 96\] px in one batch'):
        collator([small, large])
    with pytest.raises(ConversationError, match=r'000_0\.png: images are 48 px wide; .* multiple of 32'):
        collator([odd])


class _Shown(Conversation):
    """A conversation whose pictures need no file."""

    def with_pictures(self, pictures):
        object.__setattr__(self, '_pictures', pictures)
        return self

    def load_images(self):
        return self._pictures
