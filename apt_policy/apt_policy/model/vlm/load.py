"""Loading of the VLM backbone: by hub name, from a local folder, or the tiny one built in code."""

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
    """Error of a backbone that cannot be loaded; the message says what to give instead."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Backbone:
    """Qwen3-VL without its language head, with tokenizer and image format."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    image: ImageSpec


def load_backbone(config: VlmConfig, device: torch.device) -> Backbone:
    """Load what ``config.name`` names, in ``config.dtype``, onto ``device``.

    Raises:
        VlmError: the model is not found, is not a Qwen3-VL, or has no chat template with images.
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
    """Choose flash attention 2 if it is installed and can run, else torch's fused attention."""
    suits = flash_installed and device.type == 'cuda' and dtype == torch.bfloat16
    return 'flash_attention_2' if suits else 'sdpa'


def image_spec(name: str) -> ImageSpec:
    """Read a model's image format from ``preprocessor_config.json``; without that file return that of Qwen3-VL."""
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
    """Read the processor's chat template, which takes precedence over the tokenizer's."""
    if path := _optional_file(name, 'chat_template.jinja'):
        return path.read_text()
    if path := _optional_file(name, 'chat_template.json'):
        return str(json.loads(path.read_text())['chat_template'])
    return None


def _require_chat_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Check at load that there is a chat template and that it keeps images, before the first plan fails.

    Raises:
        VlmError: the chat template is missing or wrong; the message names the file.
    """
    remedy = ('Copy chat_template.jinja (or chat_template.json) from the model that it was made from, for example '
              'Qwen/Qwen3-VL-2B-Instruct')
    if not tokenizer.chat_template:
        raise VlmError(f'{name!r} has no chat template, neither in its own file nor in its tokenizer_config.json; '
                       f'the policy needs one to build its input. {remedy}')
    try:
        images = conversation(tokenizer, 'go', 2).count(IMAGE_TOKEN)
    except (TemplateError, TypeError) as error:
        raise VlmError(f'the chat template of {name!r} does not support images and text: {error}. {remedy}') from error
    if images != 2:
        raise VlmError(f'the chat template of {name!r} gives {images} {IMAGE_TOKEN} for 2 images, expected 2. {remedy}')


def _optional_file(name: str, file: str) -> Path | None:
    found = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
    return Path(found) if found else None
