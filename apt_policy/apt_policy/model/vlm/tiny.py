"""Tiny Qwen3-VL for tests and the demo, built in code without a download.

It is the real model class with few, narrow layers and random weights from a seed, and a
byte-level tokenizer with Qwen's special tokens and chat format. It is untrained.
"""

import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration

SPECIAL_TOKENS = ('<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|vision_start|>', '<|vision_end|>',
                  '<|vision_pad|>', '<|image_pad|>', '<|video_pad|>')
CHAT_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string %}{{- message.content }}{%- else %}"
    "{%- for part in message.content %}"
    "{%- if part.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif part.type == 'text' %}{{- part.text }}{%- endif %}"
    "{%- endfor %}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}")


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer with one token per byte and Qwen's special tokens."""
    alphabet = sorted(ByteLevel.alphabet())
    core = Tokenizer(BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = ByteLevel(add_prefix_space=False)
    core.decoder = ByteLevelDecoder()
    return as_qwen_tokenizer(core)


def as_qwen_tokenizer(core: Tokenizer) -> PreTrainedTokenizerFast:
    """Add Qwen's special tokens and chat format to ``core``."""
    core.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token='<|endoftext|>',
                                        eos_token='<|im_end|>', additional_special_tokens=SPECIAL_TOKENS[3:])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLConfig:
    """Build the configuration: 10 decoder layers of width 96, so 4 taps; DeepStack after the first 3 layers."""
    ids = dict(zip(SPECIAL_TOKENS, tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)), strict=True))
    text = {'vocab_size': len(tokenizer), 'hidden_size': 96, 'intermediate_size': 192,
            'num_hidden_layers': 10, 'num_attention_heads': 4, 'num_key_value_heads': 2, 'head_dim': 32,
            'max_position_embeddings': 8192, 'pad_token_id': ids['<|endoftext|>'],
            'rope_parameters': {'rope_type': 'default', 'rope_theta': 5e6, 'mrope_interleaved': True,
                                'mrope_section': [6, 5, 5]}}
    vision = {'depth': 4, 'hidden_size': 64, 'intermediate_size': 128, 'num_heads': 2, 'patch_size': 16,
              'out_hidden_size': 96, 'num_position_embeddings': 256, 'deepstack_visual_indexes': [0, 1, 2]}
    return Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True,
                         image_token_id=ids['<|image_pad|>'], video_token_id=ids['<|video_pad|>'],
                         vision_start_token_id=ids['<|vision_start|>'],
                         vision_end_token_id=ids['<|vision_end|>'])


def tiny_model(config: Qwen3VLConfig, seed: int = 0) -> Qwen3VLForConditionalGeneration:
    """Build the model with random weights from ``seed``; the global random state is unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3VLForConditionalGeneration(config)
