"""A model from scratch is a real Qwen3-VL, and its tokenizer covers the conversations."""

import pytest
import torch
from transformers import Qwen3VLForConditionalGeneration

from apt_policy.model.vlm.prompt import IMAGE_TOKEN, conversation
from apt_policy.model.vlm.tiny import SPECIAL_TOKENS, tiny_tokenizer
from apt_training.vlm_finetune.finetune import VOCABULARY, build_vlm_from_scratch, train_tokenizer

NUMBERS = tuple(f'{axis}{number}' for axis in 'xy' for number in range(30))


def said(words, count):
    return [[{'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': f'what is at {words[k % 60]}?'}]},
             {'role': 'assistant', 'content': [{'type': 'text', 'text': f'the {words[k % 60]} {words[(k + 7) % 60]}'}]}]
            for k in range(count)]


@pytest.fixture(scope='module')
def tokenizer():
    return train_tokenizer(said(NUMBERS, 300))


def test_a_word_with_the_space_before_it_is_one_token(tokenizer):
    split = [word for word in NUMBERS if len(tokenizer(f' {word}', add_special_tokens=False)['input_ids']) != 1]
    assert not split
    assert len(tokenizer('user', add_special_tokens=False)['input_ids']) == 1


@pytest.mark.parametrize('text', ['x17 y3', 'lift the red cube', 'Ä, ß & 中文 😀', '  two  spaces\n', ''])
def test_every_text_survives_encoding_and_decoding(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)['input_ids']
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_special_tokens_and_chat_format_are_those_of_qwen(tokenizer):
    assert all(len(tokenizer(token, add_special_tokens=False)['input_ids']) == 1 for token in SPECIAL_TOKENS)
    assert conversation(tokenizer, 'lift it', 2) == conversation(tiny_tokenizer(), 'lift it', 2)
    assert conversation(tokenizer, 'lift it', 2).count(IMAGE_TOKEN) == 2
    assert tokenizer.pad_token == '<|endoftext|>' and tokenizer.eos_token == '<|im_end|>'
    assert len(tokenizer) <= VOCABULARY


def test_the_same_conversations_give_the_same_tokens(tokenizer):
    assert train_tokenizer(said(NUMBERS, 300)).get_vocab() == tokenizer.get_vocab()


def test_a_model_from_scratch_is_the_real_class_and_depends_only_on_its_seed(tokenizer):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, again, other = (build_vlm_from_scratch(tokenizer, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected), 'the state of chance is left as it was'
    assert type(one) is Qwen3VLForConditionalGeneration
    assert one.config.text_config.vocab_size == len(tokenizer)
    first, second, third = (model.state_dict() for model in (one, again, other))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], third[key]) for key in first)
