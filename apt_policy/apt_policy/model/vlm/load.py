"""Finding a backbone: by hub name, by local folder, or built in code.

Returns the model, its tokenizer and how it wants its images. What is read of it is
``vlm``'s.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import cached_file, is_flash_attn_2_available

from apt_policy.model.config import TINY_VLM, VlmConfig
from apt_policy.model.vlm.pixels import ImageSpec
from apt_policy.model.vlm.tiny import tiny_config, tiny_model, tiny_tokenizer

log = logging.getLogger(__name__)


class VlmError(ValueError):
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
        VlmError: not found, or not a Qwen3-VL.
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


def _optional_file(name: str, file: str) -> Path | None:
    found = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
    return Path(found) if found else None
