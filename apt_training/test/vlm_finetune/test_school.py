"""A small model learns a few conversations by heart, and what comes out is a model like any other."""

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
from apt_training.vlm_finetune.conversations import Conversations
from apt_training.vlm_finetune.lesson import ASKED, MEANT_AT, SHOWN, Lesson
from apt_training.vlm_finetune.newborn import newborn, tokenizer_of
from apt_training.vlm_finetune.school import REPORT, Course, SchoolError, teach

STEPS, LOOKING = 24, 6


def course(out, **changes):
    return Course(out=out, **{'steps': STEPS, 'looking': LOOKING, 'batch': 3, 'lr': 2e-3, 'save_every': STEPS // 2,
                              'workers': 0, 'half': False, **changes})


def arguments_of(batch):
    """Those that a model takes."""
    return {key: value for key, value in batch.items() if key not in (ASKED, SHOWN, MEANT_AT)}


def saved(folder):
    return load_file(folder / 'model.safetensors')


@pytest.fixture(scope='module')
def lessons(write_sheet, tmp_path_factory):
    return Conversations([write_sheet(tmp_path_factory.mktemp('lessons') / 'sheet', count=6)])


@pytest.fixture(scope='module')
def school(lessons, write_sheet, tmp_path_factory):
    """The folder of a model that was taught, and what its examination found."""
    folder = tmp_path_factory.mktemp('school')
    held_out = Conversations([write_sheet(folder / 'held_out', count=4)])
    return folder / 'vlm', teach(course(folder / 'vlm'), lessons, held_out)


@pytest.fixture
def loss_of(lessons):
    """Of a model on all lessons."""
    def loss(model, tokenizer):
        with torch.no_grad():
            batch = Lesson(tokenizer, ImageSpec())([lessons[k] for k in range(6)])
            return float(model.eval()(**arguments_of(batch)).loss)
    return loss


def test_who_is_taught_answers_better_than_a_newborn(school, lessons, loss_of):
    tokenizer = tokenizer_of(one.messages for one in lessons)
    taught = Qwen3VLForConditionalGeneration.from_pretrained(school[0])
    before, after = loss_of(newborn(tokenizer, 0), tokenizer), loss_of(taught, tokenizer)
    assert after < 0.6 * before


def test_the_folder_loads_as_any_backbone_does_and_gives_features(school):
    config = VlmConfig(name=str(school[0]), dtype='float32')
    backbone = load_backbone(config, torch.device('cpu'))
    assert backbone.tokenizer.chat_template == CHAT_TEMPLATE
    assert backbone.image == image_spec(str(school[0])) == ImageSpec()
    bridge = build_bridge(config, torch.device('cpu'))
    random = torch.Generator().manual_seed(0)
    images = Images(rgb=torch.rand(2, 2, 3, 64, 64, generator=random),
                    mask=torch.ones(2, 2, 64, 64, dtype=torch.bool),
                    norm_xy=torch.zeros(2, 2, 2, 64, 64), prompts=('where is the red cube?', 'lift it'))
    features = bridge(images)
    assert features.hidden_states.shape[:2] == (bridge.taps, 2) and features.is_vision.sum(1).tolist() == [8, 8]
    assert torch.isfinite(features.hidden_states).all()
    weights = saved(school[0])
    embedded = weights['model.language_model.embed_tokens.weight']
    assert torch.equal(backbone.model.language_model.embed_tokens.weight, embedded), 'not a newborn again'


def test_the_tokenizer_of_the_folder_is_that_of_the_lessons(school, lessons):
    expected, read = tokenizer_of(one.messages for one in lessons), AutoTokenizer.from_pretrained(school[0])
    texts = [expected.apply_chat_template(list(one.messages), tokenize=False) for one in lessons]
    assert texts == [read.apply_chat_template(list(one.messages), tokenize=False) for one in lessons]
    assert [read(text)['input_ids'] for text in texts] == [expected(text)['input_ids'] for text in texts]


def test_finder_and_pointer_leave_no_trace(school, lessons):
    begun = newborn(tokenizer_of(one.messages for one in lessons), 0).state_dict()
    kept = set(begun) - {'lm_head.weight'}
    assert set(saved(school[0])) == kept
    under_way = set(saved(school[0] / 'training' / 'talking' / f'checkpoint-{STEPS}'))
    assert under_way - kept == {f'{aid}.{part}' for aid in ('finder', 'pointer') for part in ('weight', 'bias')}
    pointed = saved(school[0] / 'training' / 'talking' / f'checkpoint-{STEPS}')['pointer.weight']
    assert pointed.abs().max() > 0, 'nothing was learned of where things are that are meant'
    assert 'eager' not in (school[0] / 'config.json').read_text()


def test_looking_alone_has_taught_the_encoder_something(school, lessons):
    looked = saved(school[0] / 'training' / 'looking' / f'checkpoint-{LOOKING}')
    begun = newborn(tokenizer_of(one.messages for one in lessons), 0).model.visual.state_dict()
    assert not torch.equal(looked['visual.blocks.0.attn.qkv.weight'], begun['blocks.0.attn.qkv.weight'])
    assert looked['head.weight'].shape[0] == len(lessons.words) + 3 == 9, 'words, and a place'


def test_where_questions_mean_nothing_only_things_are_found(write_sheet, tmp_path):
    read = Conversations([write_sheet(tmp_path / 'sheet', count=3, meant=False)])
    examination = Conversations([write_sheet(tmp_path / 'held_out', count=2)])
    assert teach(course(tmp_path / 'vlm', steps=2, looking=0), read, examination)
    taught = saved(tmp_path / 'vlm' / 'training' / 'talking' / 'checkpoint-2')
    assert 'finder.weight' in taught and 'pointer.weight' not in taught


def test_the_examination_is_reported(school):
    folder, found = school
    assert json.loads((folder / REPORT).read_text()) == found
    assert set(found) == {'eval_loss', 'eval_answer_tokens_right'}
    assert 0 <= found['eval_answer_tokens_right'] <= 1 and found['eval_loss'] > 0


def test_the_share_of_right_tokens_is_that_of_greedy_guesses(school, write_sheet, tmp_path):
    """Counted again by hand."""
    read = Conversations([write_sheet(tmp_path / 'held_out', count=4)])
    batch = Lesson(AutoTokenizer.from_pretrained(school[0]), ImageSpec())([read[index] for index in range(4)])
    with torch.no_grad():
        model = Qwen3VLForConditionalGeneration.from_pretrained(school[0]).eval()
        guessed = model(**arguments_of(batch)).logits.argmax(-1)
    asked = batch['labels'][:, 1:] >= 0
    right = (guessed[:, :-1] == batch['labels'][:, 1:])[asked].float().mean()
    assert school[1]['eval_answer_tokens_right'] == pytest.approx(float(right), abs=1e-5)


def test_a_run_that_was_broken_off_goes_on_at_its_last_save(school, lessons, tmp_path):
    """To the weights that it would have had."""
    folder = tmp_path / 'vlm'
    shutil.copytree(school[0] / 'training', folder / 'training')
    shutil.rmtree(folder / 'training' / 'talking' / f'checkpoint-{STEPS}')
    earlier = [folder / 'training' / 'talking' / f'checkpoint-{STEPS // 2}' / 'model.safetensors',
               folder / 'training' / 'looking' / f'checkpoint-{LOOKING}' / 'model.safetensors']
    before = [file.stat().st_mtime_ns for file in earlier]
    assert teach(course(folder), lessons, None) == {}
    assert [file.stat().st_mtime_ns for file in earlier] == before, 'it began anew'
    whole, parts = saved(school[0]), saved(folder)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_a_model_in_a_folder_is_taught_on_in_float32(school, lessons, tmp_path, loss_of):
    model = Qwen3VLForConditionalGeneration.from_pretrained(school[0]).to(torch.bfloat16)
    model.save_pretrained(tmp_path / 'half')
    for file in ('tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja', 'preprocessor_config.json'):
        shutil.copy(school[0] / file, tmp_path / 'half')
    teach(course(tmp_path / 'more', vlm=str(tmp_path / 'half'), steps=12, looking=0, lr=5e-4), lessons, None)
    assert not (tmp_path / 'more' / 'training' / 'looking').exists()
    assert {value.dtype for value in saved(tmp_path / 'more').values()} == {torch.float32}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / 'more')
    more = Qwen3VLForConditionalGeneration.from_pretrained(tmp_path / 'more')
    assert loss_of(more, tokenizer) < loss_of(Qwen3VLForConditionalGeneration.from_pretrained(school[0]), tokenizer)


def test_without_marks_nothing_is_looked_for(write_sheet, tmp_path):
    read = Conversations([write_sheet(tmp_path / 'sheet', count=3, marks=False)])
    teach(course(tmp_path / 'vlm', steps=2), read, None)
    assert not (tmp_path / 'vlm' / 'training' / 'looking').exists()
    taught = saved(tmp_path / 'vlm' / 'training' / 'talking' / 'checkpoint-2')
    assert not any('finder' in key or 'pointer' in key for key in taught)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'steps': 0}, 'steps is 0; expected 1 or more'), ({'batch': -1}, 'batch is -1; expected 1 or more'),
    ({'save_every': 0}, 'save_every is 0'), ({'lr': 5.0}, 'lr is 5.0; expected between 0 and 1'),
    ({'lr': float('nan')}, 'lr is nan'), ({'looking': -1}, 'looking is -1; expected 0 or more'),
    ({'workers': -1}, 'workers is -1'), ({'seed': -1}, 'seed is -1')])
def test_numbers_that_make_no_course_are_refused(tmp_path, changes, message):
    with pytest.raises(SchoolError, match=message):
        course(tmp_path, **changes)


def test_a_model_that_cannot_be_loaded_is_named(lessons, tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(SchoolError, match=r"cannot load the vision-language model '.*empty'"):
        teach(course(tmp_path / 'out', vlm=str(tmp_path / 'empty')), lessons, None)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(('changes', 'words'), [
    ({'lr': 1e-3}, 'lr = 0.002, these settings have 0.001'), ({'seed': 4}, 'seed = 0, these settings have 4'),
    ({'batch': 2}, 'conversations_per_step = 3, these settings have 2')])
def test_a_folder_does_not_go_on_with_another_course(school, lessons, tmp_path, changes, words):
    folder = tmp_path / 'vlm'
    shutil.copytree(school[0], folder)
    with pytest.raises(SchoolError, match=words):
        teach(course(folder, **changes), lessons, None)


def test_a_folder_does_not_go_on_with_other_conversations(school, lessons, write_sheet, tmp_path):
    folder = tmp_path / 'vlm'
    shutil.copytree(school[0], folder)
    with pytest.raises(SchoolError, match="conversations = '.*choose another folder"):
        teach(course(folder), Conversations([write_sheet(tmp_path / 'sheet', count=2)]), None)


def test_processes_share_a_step_so_that_their_number_may_change(school, lessons, tmp_path, monkeypatch):
    folder = tmp_path / 'vlm'
    shutil.copytree(school[0], folder)
    monkeypatch.setenv('WORLD_SIZE', '3')
    with pytest.raises(SchoolError, match='conversations_per_step = 3, these settings have 9'):
        teach(course(folder), lessons, None)
