"""A small model learns a few conversations by heart, and the saved folder is an ordinary Qwen3-VL."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

from apt_policy.model.batch import Images
from apt_policy.model.config import VlmConfig
from apt_policy.model.vlm.bridge import build_bridge
from apt_policy.model.vlm.load import image_spec, load_backbone
from apt_policy.model.vlm.pixels import ImageSpec
from apt_policy.model.vlm.tiny import CHAT_TEMPLATE
from apt_training.vlm_finetune.conversations import ConversationDataset
from apt_training.vlm_finetune.finetune import (
    CONFIG_FILE,
    REPORT_FILE,
    VlmFinetuneConfig,
    VlmFinetuneError,
    build_vlm_from_scratch,
    finetune_vlm,
    train_tokenizer,
)
from apt_training.vlm_finetune.vqa_collator import QUESTION_TOKENS, TARGET_POSITIONS, TARGET_TOKENS, VqaCollator

STEPS, WARMUP_STEPS = 24, 6


def config(out, **changes):
    return VlmFinetuneConfig(out=out, **{
        'steps': STEPS, 'grounding_warmup_steps': WARMUP_STEPS, 'batch_size': 3, 'lr': 2e-3, 'save_every': STEPS // 2,
        'workers': 0, 'half': False, **changes})


def arguments_of(batch):
    """Inputs of the model, without the labels of auxiliary tasks."""
    return {key: value for key, value in batch.items() if key not in (QUESTION_TOKENS, TARGET_TOKENS, TARGET_POSITIONS)}


def saved(folder):
    return load_file(folder / 'model.safetensors')


@pytest.fixture(scope='module')
def dataset(write_sheet, tmp_path_factory):
    return ConversationDataset([write_sheet(tmp_path_factory.mktemp('lessons') / 'sheet', count=6)])


@pytest.fixture(scope='module')
def finetuned(dataset, write_sheet, tmp_path_factory):
    """The folder of a fine-tuned model, and the results of its evaluation."""
    folder = tmp_path_factory.mktemp('finetuned')
    held_out = ConversationDataset([write_sheet(folder / 'held_out', count=4)])
    return folder / 'vlm', finetune_vlm(config(folder / 'vlm'), dataset, held_out)


@pytest.fixture
def loss_of(dataset):
    """Loss of a model on all conversations."""
    def loss(model, tokenizer):
        with torch.no_grad():
            batch = VqaCollator(tokenizer, ImageSpec())([dataset[k] for k in range(6)])
            return float(model.eval()(**arguments_of(batch)).loss)
    return loss


def test_a_finetuned_model_answers_better_than_one_from_scratch(finetuned, dataset, loss_of):
    tokenizer = train_tokenizer(one.messages for one in dataset)
    taught = Qwen3VLForConditionalGeneration.from_pretrained(finetuned[0])
    before, after = loss_of(build_vlm_from_scratch(tokenizer, 0), tokenizer), loss_of(taught, tokenizer)
    assert after < 0.6 * before


def test_the_folder_loads_as_any_backbone_does_and_gives_features(finetuned):
    config = VlmConfig(name=str(finetuned[0]), dtype='float32')
    backbone = load_backbone(config, torch.device('cpu'))
    assert backbone.tokenizer.chat_template == CHAT_TEMPLATE
    assert backbone.image == image_spec(str(finetuned[0])) == ImageSpec()
    bridge = build_bridge(config, torch.device('cpu'))
    random = torch.Generator().manual_seed(0)
    images = Images(rgb=torch.rand(2, 2, 3, 64, 64, generator=random),
                    mask=torch.ones(2, 2, 64, 64, dtype=torch.bool),
                    norm_xy=torch.zeros(2, 2, 2, 64, 64), prompts=('where is the red cube?', 'lift it'))
    features = bridge(images)
    assert features.hidden_states.shape[:2] == (bridge.taps, 2) and features.is_vision.sum(1).tolist() == [8, 8]
    assert torch.isfinite(features.hidden_states).all()
    weights = saved(finetuned[0])
    embedded = weights['model.language_model.embed_tokens.weight']
    assert torch.equal(backbone.model.language_model.embed_tokens.weight, embedded), 'not random weights again'


def test_the_tokenizer_of_the_folder_is_that_of_the_conversations(finetuned, dataset):
    expected, read = train_tokenizer(one.messages for one in dataset), AutoTokenizer.from_pretrained(finetuned[0])
    texts = [expected.apply_chat_template(list(one.messages), tokenize=False) for one in dataset]
    assert texts == [read.apply_chat_template(list(one.messages), tokenize=False) for one in dataset]
    assert [read(text)['input_ids'] for text in texts] == [expected(text)['input_ids'] for text in texts]


def test_the_auxiliary_tasks_leave_no_trace(finetuned, dataset):
    begun = build_vlm_from_scratch(train_tokenizer(one.messages for one in dataset), 0).state_dict()
    kept = set(begun) - {'lm_head.weight'}
    assert set(saved(finetuned[0])) == kept
    under_way = set(saved(finetuned[0] / 'training' / 'talking' / f'checkpoint-{STEPS}'))
    assert under_way - kept == {f'{aid}.{part}' for aid in ('finder', 'pointer') for part in ('weight', 'bias')}
    pointed = saved(finetuned[0] / 'training' / 'talking' / f'checkpoint-{STEPS}')['pointer.weight']
    assert pointed.abs().max() > 0, 'the positions of targets were not trained'
    assert 'eager' not in (finetuned[0] / 'config.json').read_text()


def test_the_grounding_warm_up_trains_the_encoder(finetuned, dataset):
    looked = saved(finetuned[0] / 'training' / 'looking' / f'checkpoint-{WARMUP_STEPS}')
    begun = build_vlm_from_scratch(train_tokenizer(one.messages for one in dataset), 0).model.visual.state_dict()
    assert not torch.equal(looked['visual.blocks.0.attn.qkv.weight'], begun['blocks.0.attn.qkv.weight'])
    assert looked['head.weight'].shape[0] == len(dataset.words) + 3 == 9, 'words, and a place'


def test_without_targets_of_questions_only_the_grounding_head_is_trained(write_sheet, tmp_path):
    read = ConversationDataset([write_sheet(tmp_path / 'sheet', count=3, meant=False)])
    held_out = ConversationDataset([write_sheet(tmp_path / 'held_out', count=2)])
    assert finetune_vlm(config(tmp_path / 'vlm', steps=2, grounding_warmup_steps=0), read, held_out)
    taught = saved(tmp_path / 'vlm' / 'training' / 'talking' / 'checkpoint-2')
    assert 'finder.weight' in taught and 'pointer.weight' not in taught


def test_the_evaluation_is_reported(finetuned):
    folder, found = finetuned
    assert json.loads((folder / REPORT_FILE).read_text()) == found
    assert set(found) == {'eval_loss', 'eval_answer_tokens_right'}
    assert 0 <= found['eval_answer_tokens_right'] <= 1 and found['eval_loss'] > 0


def test_the_share_of_right_tokens_is_that_of_greedy_guesses(finetuned, write_sheet, tmp_path):
    """Counted again by hand."""
    read = ConversationDataset([write_sheet(tmp_path / 'held_out', count=4)])
    batch = VqaCollator(AutoTokenizer.from_pretrained(finetuned[0]), ImageSpec())([read[index] for index in range(4)])
    with torch.no_grad():
        model = Qwen3VLForConditionalGeneration.from_pretrained(finetuned[0]).eval()
        guessed = model(**arguments_of(batch)).logits.argmax(-1)
    asked = batch['labels'][:, 1:] >= 0
    right = (guessed[:, :-1] == batch['labels'][:, 1:])[asked].float().mean()
    assert finetuned[1]['eval_answer_tokens_right'] == pytest.approx(float(right), abs=1e-5)


def test_an_interrupted_run_resumes_from_its_last_checkpoint(finetuned, dataset, tmp_path):
    """To the weights that it would have had."""
    folder = tmp_path / 'vlm'
    shutil.copytree(finetuned[0] / 'training', folder / 'training')
    shutil.rmtree(folder / 'training' / 'talking' / f'checkpoint-{STEPS}')
    earlier = [folder / 'training' / 'talking' / f'checkpoint-{STEPS // 2}' / 'model.safetensors',
               folder / 'training' / 'looking' / f'checkpoint-{WARMUP_STEPS}' / 'model.safetensors']
    before = [file.stat().st_mtime_ns for file in earlier]
    assert finetune_vlm(config(folder), dataset, None) == {}
    assert [file.stat().st_mtime_ns for file in earlier] == before, 'it began anew'
    whole, parts = saved(finetuned[0]), saved(folder)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_a_model_in_a_folder_is_finetuned_in_float32(finetuned, dataset, tmp_path, loss_of):
    model = Qwen3VLForConditionalGeneration.from_pretrained(finetuned[0]).to(torch.bfloat16)
    model.save_pretrained(tmp_path / 'half')
    for file in ('tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja', 'preprocessor_config.json'):
        shutil.copy(finetuned[0] / file, tmp_path / 'half')
    more = config(tmp_path / 'more', vlm=str(tmp_path / 'half'), steps=12, grounding_warmup_steps=0, lr=5e-4)
    finetune_vlm(more, dataset, None)
    assert not (tmp_path / 'more' / 'training' / 'looking').exists()
    assert {value.dtype for value in saved(tmp_path / 'more').values()} == {torch.float32}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / 'more')
    more = Qwen3VLForConditionalGeneration.from_pretrained(tmp_path / 'more')
    assert loss_of(more, tokenizer) < loss_of(Qwen3VLForConditionalGeneration.from_pretrained(finetuned[0]), tokenizer)


def test_without_marks_there_is_no_grounding_head(write_sheet, tmp_path):
    read = ConversationDataset([write_sheet(tmp_path / 'sheet', count=3, marks=False)])
    finetune_vlm(config(tmp_path / 'vlm', steps=2), read, None)
    assert not (tmp_path / 'vlm' / 'training' / 'looking').exists()
    taught = saved(tmp_path / 'vlm' / 'training' / 'talking' / 'checkpoint-2')
    assert not any('finder' in key or 'pointer' in key for key in taught)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'steps': 0}, 'steps is 0; expected 1 or more'), ({'batch_size': -1}, 'batch_size is -1; expected 1 or more'),
    ({'save_every': 0}, 'save_every is 0'), ({'lr': 5.0}, 'lr is 5.0; expected between 0 and 1'),
    ({'lr': float('nan')}, 'lr is nan'),
    ({'grounding_warmup_steps': -1}, 'grounding_warmup_steps is -1; expected 0 or more'),
    ({'workers': -1}, 'workers is -1'), ({'seed': -1}, 'seed is -1')])
def test_numbers_out_of_range_are_refused(tmp_path, changes, message):
    with pytest.raises(VlmFinetuneError, match=message):
        config(tmp_path, **changes)


def test_a_model_that_cannot_be_loaded_is_named(dataset, tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(VlmFinetuneError, match=r"cannot load the vision-language model '.*empty'"):
        finetune_vlm(config(tmp_path / 'out', vlm=str(tmp_path / 'empty')), dataset, None)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(('changes', 'words'), [
    ({'lr': 1e-3}, 'lr = 0.002, these settings have 0.001'), ({'seed': 4}, 'seed = 0, these settings have 4'),
    ({'batch_size': 2}, 'conversations_per_step = 3, these settings have 2')])
def test_a_folder_is_not_resumed_with_another_configuration(finetuned, dataset, tmp_path, changes, words):
    folder = tmp_path / 'vlm'
    shutil.copytree(finetuned[0], folder)
    with pytest.raises(VlmFinetuneError, match=words):
        finetune_vlm(config(folder, **changes), dataset, None)


def test_a_folder_of_an_older_version_has_the_same_record(finetuned):
    record = json.loads((finetuned[0] / 'training' / CONFIG_FILE).read_text())
    assert CONFIG_FILE == 'course.json' and record['vlm'] == 'newborn'
    assert set(record) == {'vlm', 'seed', 'lr', 'conversations', 'conversations_per_step'}


def test_a_folder_is_not_resumed_with_other_conversations(finetuned, dataset, write_sheet, tmp_path):
    folder = tmp_path / 'vlm'
    shutil.copytree(finetuned[0], folder)
    with pytest.raises(VlmFinetuneError, match="conversations = '.*choose another folder"):
        finetune_vlm(config(folder), ConversationDataset([write_sheet(tmp_path / 'sheet', count=2)]), None)


def test_processes_share_a_step_so_that_their_number_may_change(finetuned, dataset, tmp_path, monkeypatch):
    folder = tmp_path / 'vlm'
    shutil.copytree(finetuned[0], folder)
    monkeypatch.setenv('WORLD_SIZE', '3')
    with pytest.raises(VlmFinetuneError, match='conversations_per_step = 3, these settings have 9'):
        finetune_vlm(config(folder), dataset, None)
