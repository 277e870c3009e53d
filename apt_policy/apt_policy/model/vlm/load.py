"""Finding a backbone: by hub name, by local folder, or built in code.

Returns the model, its tokenizer and how it wants its images. What is read of it is
``vlm``'s.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from jinja2 import TemplateError
from torch import nn
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import cached_file, is_flash_attn_2_available

from apt_policy.core.errors import UserError
from apt_policy.model.config import TINY_VLM, VlmConfig
from apt_policy.model.vlm.pixels import ImageSpec
from apt_policy.model.vlm.prompt import IMAGE_TOKEN, conversation
from apt_policy.model.vlm.tiny import tiny_config, tiny_model, tiny_tokenizer

log = logging.getLogger(__name__)


class VlmError(UserError, ValueError):
    """A backbone that cannot be loaded; the message says what to give instead."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Backbone:
    """A Qwen3-VL without its language head."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    image: ImageSpec


def load_backbone(config: VlmConfig, device: torch.device) -> Backbone:
    """Load what ``config.name`` names, in ``config.dtype``, onto ``device``.

    Raises:
        VlmError: not found, not a Qwen3-VL, or without a chat template that takes images.
    """
    dtype = getattr(torch, config.dtype)
    if config.name == TINY_VLM:
        tokenizer = tiny_tokenizer()
        model = tiny_model(tiny_config(tokenizer)).model
        return Backbone(model=model.to(device, dtype), tokenizer=tokenizer, image=ImageSpec())
    try:
        tokenizer = AutoTokenizer.from_pretrained(config.name)
        image = image_spec(config.name)
        tokenizer.chat_template = _chat_template(config.name) or tokenizer.chat_template
        attention = attention_implementation(device, dtype, flash_installed=is_flash_attn_2_available())
        model = AutoModel.from_pretrained(config.name, dtype=dtype, attn_implementation=attention)
    except (OSError, ValueError) as error:
        raise VlmError(f'cannot load the vision-language model {config.name!r}: {error}\n'
                       'Give the name of a Qwen3-VL on the Hugging Face hub, a folder that holds one '
                       f'(config.json, *.safetensors, tokenizer files), or {TINY_VLM!r}') from error
    if not model.config.model_type.startswith('qwen3_vl'):
        raise VlmError(f'{config.name!r} is a {model.config.model_type!r}; expected a Qwen3-VL')
    _require_chat_template(tokenizer, config.name)
    return Backbone(model=model.to(device), tokenizer=tokenizer, image=image)


def attention_implementation(device: torch.device, dtype: torch.dtype, *, flash_installed: bool) -> str:
    """Flash attention 2 where it is installed and can run, else torch's fused attention."""
    suits = flash_installed and device.type == 'cuda' and dtype == torch.bfloat16
    return 'flash_attention_2' if suits else 'sdpa'


def image_spec(name: str) -> ImageSpec:
    """How a model of that name wants its images (``preprocessor_config.json``); by default as Qwen3-VL does."""
    path = _optional_file(name, 'preprocessor_config.json')
    if path is None:
        log.warning('%s has no preprocessor_config.json; using %s', name, ImageSpec())
        return ImageSpec()
    fields = json.loads(path.read_text())
    default = ImageSpec()
    return ImageSpec(mean=tuple(fields.get('image_mean', default.mean)),
                     std=tuple(fields.get('image_std', default.std)),
                     patch=fields.get('patch_size', default.patch),
                     frames=fields.get('temporal_patch_size', default.frames),
                     merge=fields.get('merge_size', default.merge))


def _chat_template(name: str) -> str | None:
    """The processor's template, which goes before the tokenizer's."""
    if path := _optional_file(name, 'chat_template.jinja'):
        return path.read_text()
    if path := _optional_file(name, 'chat_template.json'):
        return str(json.loads(path.read_text())['chat_template'])
    return None


def _require_chat_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Refuse at load what would fail at the first plan: no template, or one that drops images.

    Raises:
        VlmError: naming the file that is missing or wrong.
    """
    remedy = ('Copy chat_template.jinja (or chat_template.json) from the model that it was made from, for example '
              'Qwen/Qwen3-VL-2B-Instruct')
    if not tokenizer.chat_template:
        raise VlmError(f'{name!r} has no chat template, neither in a file of its own nor in its tokenizer_config.json; '
                       f'the policy speaks to the model through one. {remedy}')
    try:
        images = conversation(tokenizer, 'go', 2).count(IMAGE_TOKEN)
    except (TemplateError, TypeError) as error:
        raise VlmError(f'the chat template of {name!r} cannot take images and text: {error}. {remedy}') from error
    if images != 2:
        raise VlmError(f'the chat template of {name!r} has {images} places {IMAGE_TOKEN} for 2 images. {remedy}')


def _optional_file(name: str, file: str) -> Path | None:
    found = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
    return Path(found) if found else None
