"""The bridge, against a plain run of the real model class."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from apt_policy.core.prompt import PromptError
from apt_policy.model.batch import LANGUAGE, PAD, VISION
from apt_policy.model.config import VlmConfig, VlmMode
from apt_policy.model.vlm.bridge import VlmBridge, build_bridge
from apt_policy.model.vlm.load import Backbone, VlmError, attention_implementation
from apt_policy.model.vlm.pixels import ImageSpec, patches
from apt_policy.model.vlm.prompt import IMAGE_TOKEN, conversation, tokenize
from apt_policy.model.vlm.tiny import tiny_config, tiny_model, tiny_tokenizer

CPU = torch.device('cpu')
TAPS = (0, 3, 6, 9)


@pytest.fixture(scope='module')
def whole_model():
    """The same tiny model, untouched."""
    return tiny_model(tiny_config(tiny_tokenizer())).eval()


@torch.no_grad()
def plain_run(model, images):
    """Every decoder layer's own output and the merged embeddings, by hooks on an ordinary forward pass."""
    tokenizer, spec = tiny_tokenizer(), ImageSpec()
    ids, attended = tokenize(tokenizer, images.prompts, images=images.camera_valid.sum(-1).tolist(),
                             tokens_per_image=spec.tokens(images.rgb.shape[-1]), max_text_tokens=999)
    pixels, grid = patches(images.rgb[images.camera_valid], spec)
    layers, seen = model.model.language_model.layers, {}
    hooks = [layer.register_forward_hook(lambda _, __, out, i=i: seen.__setitem__(i, out))
             for i, layer in enumerate(layers)]
    hooks.append(layers[0].register_forward_pre_hook(lambda _, args: seen.__setitem__('in', args[0])))
    model(input_ids=ids, attention_mask=attended.long(), pixel_values=pixels, image_grid_thw=grid,
          mm_token_type_ids=(ids == tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)).int())
    for hook in hooks:
        hook.remove()
    return seen, ids, attended


def test_taps_are_the_layers_own_outputs(tiny_bridge, whole_model, random_images):
    images = random_images(('pick up the red cube', 'go'))
    features = tiny_bridge()(images)
    seen, _, attended = plain_run(whole_model, images)
    assert features.hidden_states.shape[0] == len(TAPS)
    for got, tap in zip(features.hidden_states, TAPS, strict=True):
        assert torch.allclose(got[attended], seen[tap][attended], atol=1e-6)
    assert torch.allclose(features.inputs_embeds[attended], seen['in'][attended], atol=1e-6)


def test_the_deepstack_residual_is_not_in_the_taps(whole_model, random_images):
    """The oracle is not blind to it: the next layer's input is the tap plus that residual."""
    images = random_images(('go',))
    layers, seen = whole_model.model.language_model.layers, []
    with layers[1].register_forward_pre_hook(lambda _, args: seen.append(args[0])):
        outputs, ids, _ = plain_run(whole_model, images)
    differs = (seen[0] - outputs[0]).abs().amax(-1) > 1e-6
    assert torch.equal(differs, ids == tiny_tokenizer().convert_tokens_to_ids(IMAGE_TOKEN))


def test_nothing_behind_the_deepest_tap_is_run(random_images):
    tokenizer = tiny_tokenizer()
    config = tiny_config(tokenizer)
    config.text_config.num_hidden_layers = 12
    backbone = tiny_model(config).model
    norm, runs = backbone.language_model.norm, []
    for i, layer in enumerate(backbone.language_model.layers):
        layer.register_forward_hook(lambda *_, i=i: runs.append(i))
    norm.register_forward_hook(lambda *_: runs.append('norm'))
    bridge = VlmBridge(VlmConfig(name='tiny', dtype='float32'),
                       Backbone(model=backbone, tokenizer=tokenizer, image=ImageSpec()))
    bridge(random_images(('go',)))
    assert bridge.taps == 4 and runs == list(range(10))


def test_embeddings_positions_and_modality_are_those_of_the_conversation(tiny_bridge, random_images):
    images = random_images(('pick it', 'up'))
    features = tiny_bridge()(images)
    # <|im_start|>user\n <|vision_start|> 4 tokens <|vision_end|> <|vision_start|> 4 ...
    assert features.is_vision[0].nonzero()[:, 0].tolist() == [7, 8, 9, 10, 13, 14, 15, 16]
    assert features.is_vision[1].nonzero()[:, 0].tolist() == [12, 13, 14, 15, 18, 19, 20, 21]
    assert features.modality[1, :5].tolist() == [PAD] * 5
    assert features.modality[0, 6:9].tolist() == [LANGUAGE, VISION, VISION]
    assert features.positions[0].tolist() == [*range(8), 7, 7, 7, 8, 9, *[9] * 4, *range(10, 38)][:len(
        features.positions[0])]


def test_vision_features_are_free_of_the_instruction(tiny_bridge, random_images):
    bridge, images = tiny_bridge(), random_images(('pick up the red cube',))
    said = bridge(images)
    other = bridge(replace(images, prompts=('put the blue one down, please',)))
    for get in (lambda f: f.inputs_embeds[f.is_vision], lambda f: f.hidden_states[:, f.is_vision]):
        assert torch.allclose(get(said), get(other), atol=1e-6)


def test_a_batch_with_left_padding_equals_single_samples(tiny_bridge, random_images):
    bridge, images = tiny_bridge(), random_images(('pick up the red cube', 'go'))
    features = bridge(images)
    for i in range(2):
        alone = bridge(type(images)(rgb=images.rgb[i:i + 1], mask=images.mask[i:i + 1],
                                    norm_xy=images.norm_xy[i:i + 1], prompts=images.prompts[i:i + 1]))
        kept = features.attention_mask[i]
        assert torch.allclose(features.hidden_states[:, i, kept], alone.hidden_states[:, 0], atol=1e-5)
        assert torch.equal(features.is_vision[i, kept], alone.is_vision[0])


def test_a_camera_without_valid_pixels_is_left_out_of_the_conversation(tiny_bridge, random_images):
    bridge, images = tiny_bridge(), random_images(('go',), cameras=3)
    mask = images.mask.clone()
    mask[0, 1] = False
    features = bridge(replace(images, mask=mask))
    two = bridge(replace(images, rgb=images.rgb[:, [0, 2]], mask=images.mask[:, [0, 2]],
                         norm_xy=images.norm_xy[:, [0, 2]]))
    assert torch.allclose(features.hidden_states, two.hidden_states, atol=1e-6)
    assert features.camera_valid.tolist() == [[True, False, True]]
    assert torch.equal(features.norm_xy[:, [0, 2]], two.norm_xy)


def test_tokens_whose_pixels_are_masked_are_hidden_but_stay_vision(tiny_bridge, random_images):
    images = random_images(('go', 'go'))
    mask = images.mask.clone()
    mask[1, 1, :32] = False
    features = tiny_bridge()(replace(images, mask=mask))
    hidden = (~features.attention_mask[1]).nonzero()[:, 0].tolist()
    assert hidden == features.is_vision[1].nonzero()[4:6, 0].tolist()
    assert bool(features.attention_mask[0].all())


def test_without_any_camera_there_is_language_only(tiny_bridge, random_images):
    images = random_images(('go',))
    features = tiny_bridge()(replace(images, mask=torch.zeros_like(images.mask)))
    assert not features.is_vision.any() and torch.isfinite(features.hidden_states).all()


def test_a_frozen_model_keeps_no_graph_and_stays_in_evaluation_mode(tiny_bridge, random_images):
    bridge = tiny_bridge().train()
    assert not any(p.requires_grad for p in bridge.parameters()) and not bridge.model.training
    assert not bridge(random_images(('go',))).hidden_states.requires_grad


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_lora_trains_its_adapters_in_the_language_model_only(tiny_bridge, random_images, dtype):
    bridge = tiny_bridge(VlmMode.LORA, dtype=dtype)
    trained = {name for name, p in bridge.named_parameters() if p.requires_grad}
    assert trained and all('lora_' in name and 'language_model.layers' in name for name in trained)
    assert len(trained) == 10 * 7 * 2
    bridge(random_images(('go',))).hidden_states.float().square().sum().backward()
    assert all(p.grad is not None for name, p in bridge.named_parameters() if 'lora_B' in name)


def test_fresh_lora_adapters_change_nothing(tiny_bridge, random_images):
    images = random_images(('go',))
    frozen, adapted = tiny_bridge()(images), tiny_bridge(VlmMode.LORA)(images)
    assert torch.allclose(frozen.hidden_states, adapted.hidden_states, atol=1e-6)


def test_full_training_keeps_norms_and_embeddings_in_float32(tiny_bridge, random_images):
    bridge = tiny_bridge(VlmMode.FULL, dtype='bfloat16')
    for name, parameter in bridge.named_parameters():
        fine = any(part in name for part in ('norm', 'patch_embed', 'pos_embed', 'embed_tokens'))
        assert parameter.dtype == (torch.float32 if fine else torch.bfloat16), name
    features = bridge(random_images(('go',)))
    exact = tiny_bridge()(random_images(('go',)))
    assert torch.allclose(features.hidden_states.float(), exact.hidden_states, atol=0.05)
    features.hidden_states.float().square().sum().backward()
    assert all(p.grad is not None for p in bridge.model.language_model.layers.parameters())


def test_gradient_checkpointing_changes_neither_taps_nor_gradients(tiny_bridge, random_images):
    images, results = random_images(('go',)), []
    for checkpointing in (False, True):
        bridge, runs = tiny_bridge(VlmMode.FULL, gradient_checkpointing=checkpointing).train(), []
        norm = bridge.model.language_model.layers[4].input_layernorm
        norm.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        features = bridge(images)
        (features.hidden_states * torch.arange(4.0)[:, None, None, None]).square().sum().backward()
        assert len(runs) == 1 + checkpointing, 'layers are run again in the backward pass'
        results.append((features.hidden_states.detach(),
                        [p.grad for p in bridge.parameters() if p.grad is not None]))
    assert torch.equal(results[0][0], results[1][0])
    assert len(results[0][1]) == len(results[1][1])
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-3)
               for a, b in zip(results[0][1], results[1][1], strict=True))


@pytest.fixture(scope='module')
def saved_folder(tmp_path_factory, whole_model):
    """A folder as the hub would deliver it: config, weights, tokenizer, image processor."""
    folder = tmp_path_factory.mktemp('qwen3-vl')
    whole_model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    Qwen2VLImageProcessorPil(patch_size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(folder)
    return folder


def test_a_qwen3_vl_is_loaded_from_a_folder(saved_folder, tiny_bridge, random_images):
    bridge = build_bridge(VlmConfig(name=str(saved_folder), dtype='float32'), CPU)
    images = random_images(('pick up the red cube', 'go'))
    assert torch.allclose(bridge(images).hidden_states, tiny_bridge()(images).hidden_states, atol=1e-6)
    assert next(bridge.parameters()).dtype == torch.float32
    assert next(build_bridge(VlmConfig(name=str(saved_folder)), CPU).parameters()).dtype == torch.bfloat16


def test_the_image_statistics_of_the_folder_count(saved_folder, tmp_path, random_images):
    for file in saved_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    fields = json.loads((tmp_path / 'preprocessor_config.json').read_text())
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps({**fields, 'image_mean': [0.1, 0.2, 0.3]}))
    images = random_images(('go',))
    usual, other = (build_bridge(VlmConfig(name=str(folder), dtype='float32'), CPU)(images)
                    for folder in (saved_folder, tmp_path))
    assert not torch.allclose(usual.inputs_embeds, other.inputs_embeds, atol=1e-4)


def test_the_processors_chat_template_goes_before_the_tokenizers(saved_folder, tmp_path, random_images):
    for file in saved_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / 'chat_template.jinja').unlink(missing_ok=True)
    template = tiny_tokenizer().chat_template.replace("'<|im_start|>' + message.role", "'<|im_start|>robot'")
    (tmp_path / 'chat_template.json').write_text(json.dumps({'chat_template': template}))
    images = random_images(('go',))
    lengths = [build_bridge(VlmConfig(name=str(folder), dtype='float32'), CPU)(images).is_vision.shape[1]
               for folder in (saved_folder, tmp_path)]
    assert lengths[1] == lengths[0] + len('robot') - len('user')


def without_templates(folder, saved_folder):
    """A copy of ``saved_folder`` that has no chat template."""
    for file in saved_folder.iterdir():
        if file.name != 'chat_template.jinja':
            (folder / file.name).write_bytes(file.read_bytes())
    settings = json.loads((folder / 'tokenizer_config.json').read_text())
    settings.pop('chat_template', None)
    (folder / 'tokenizer_config.json').write_text(json.dumps(settings))
    return folder


def test_a_model_without_a_chat_template_is_refused_at_load(saved_folder, tmp_path):
    folder = without_templates(tmp_path, saved_folder)
    with pytest.raises(VlmError, match=r'has no chat template, neither in .*; .* Copy chat_template\.jinja'):
        build_bridge(VlmConfig(name=str(folder)), CPU)


@pytest.mark.parametrize(('template', 'message'), [
    ("{{ messages[0].content[-1].text }}",
     r'gives 0 <\|image_pad\|> for 2 images, expected 2\. Copy chat_template\.jinja'),
    ("{{ 'user: ' + messages[0].content }}", r'does not support images and text: .*\. Copy chat_template\.jinja'),
    ("{{ messages[0].content", r'does not support images and text: .*\. Copy chat_template\.jinja'),
])
def test_a_chat_template_of_a_model_that_only_reads_is_refused_at_load(saved_folder, tmp_path, template, message):
    folder = without_templates(tmp_path, saved_folder)
    (folder / 'chat_template.jinja').write_text(template)
    with pytest.raises(VlmError, match=message):
        build_bridge(VlmConfig(name=str(folder)), CPU)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(VlmError, match=r'cannot load the vision-language model .*nowhere(.|\n)*Give the name'):
        build_bridge(VlmConfig(name=str(tmp_path / 'nowhere')), CPU)


def test_a_model_that_is_no_qwen3_vl_is_refused(tmp_path):
    LlamaModel(LlamaConfig(vocab_size=300, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                           num_attention_heads=2)).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(VlmError, match=r"is a 'llama'; expected a Qwen3-VL"):
        build_bridge(VlmConfig(name=str(tmp_path)), CPU)


@pytest.mark.parametrize(('device', 'dtype', 'installed', 'expected'), [
    ('cuda', torch.bfloat16, True, 'flash_attention_2'), ('cuda', torch.bfloat16, False, 'sdpa'),
    ('cuda', torch.float32, True, 'sdpa'), ('cpu', torch.bfloat16, True, 'sdpa')])
def test_flash_attention_is_for_bfloat16_on_a_gpu_that_has_it(device, dtype, installed, expected):
    assert attention_implementation(torch.device(device), dtype, flash_installed=installed) == expected


def test_images_come_before_the_raw_instruction_in_one_user_turn():
    assert conversation(tiny_tokenizer(), '  Pick it up!\n', 2) == (
        '<|im_start|>user\n' + '<|vision_start|><|image_pad|><|vision_end|>' * 2
        + '  Pick it up!\n<|im_end|>\n<|im_start|>assistant\n')


def test_padding_goes_to_the_left():
    ids, attended = tokenize(tiny_tokenizer(), ('a', 'abc'), images=(0, 0), tokens_per_image=1,
                             max_text_tokens=9)
    assert attended.tolist() == [[False] * 2 + [True] * (ids.shape[1] - 2), [True] * ids.shape[1]]


@pytest.mark.parametrize('prompt', ['Würfel 積み木 🟥', 'x' * 900, ''], ids=['unicode', 'long', 'empty'])
def test_any_text_is_tokenized_and_back(prompt):
    tokenizer = tiny_tokenizer()
    ids, _ = tokenize(tokenizer, (prompt,), images=(1,), tokens_per_image=3, max_text_tokens=900)
    assert tokenizer.decode(ids[0]) == conversation(tokenizer, prompt, 1).replace(IMAGE_TOKEN, IMAGE_TOKEN * 3)


@pytest.mark.parametrize('reserved', [IMAGE_TOKEN, '<|im_end|>'])
def test_an_instruction_with_a_reserved_token_is_refused(reserved):
    with pytest.raises(PromptError, match='is reserved for the model; remove it'):
        tokenize(tiny_tokenizer(), (f'pick {reserved} up',), images=(1,), tokens_per_image=3,
                 max_text_tokens=99)


def test_an_instruction_that_is_too_long_is_refused():
    with pytest.raises(PromptError, match='the instruction has 101 tokens, at most 100 are allowed'):
        tokenize(tiny_tokenizer(), ('x' * 101,), images=(1,), tokens_per_image=3, max_text_tokens=100)


def test_the_tiny_model_is_the_same_every_time_and_leaves_the_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = (tiny_model(tiny_config(tiny_tokenizer())) for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert isinstance(first, nn.Module)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert sum(p.numel() for p in first.parameters()) < 2e6
