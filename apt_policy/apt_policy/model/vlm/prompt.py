"""Conversation for the VLM: one user turn, images first, then the instruction.

With images before text in a causal model, vision features do not depend on language; a
vision-action prior needs that.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from apt_policy.core.prompt import PromptError

IMAGE_TOKEN = '<|image_pad|>'


def tokenize(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], *, images: Sequence[int],
             tokens_per_image: int, max_text_tokens: int) -> tuple[Tensor, Tensor]:
    """Tokenize instructions, with placeholders for image tokens.

    Args:
        tokenizer: tokenizer with the backbone's chat template.
        prompts: raw instructions.
        images: number of images before each instruction.
        tokens_per_image: number of placeholders per image.
        max_text_tokens: largest number of tokens of an instruction.

    Returns:
        Token ids and attention mask (B, L), left padded.

    Raises:
        PromptError: an instruction is too long or contains a reserved token.
    """
    for prompt in prompts:
        _check(tokenizer, prompt, max_text_tokens)
    texts = [conversation(tokenizer, prompt, count).replace(IMAGE_TOKEN, IMAGE_TOKEN * tokens_per_image)
             for prompt, count in zip(prompts, images, strict=True)]
    batch = tokenizer(texts, padding=True, padding_side='left', add_special_tokens=False,
                      return_tensors='pt')
    return batch['input_ids'], batch['attention_mask'].to(torch.bool)


def conversation(tokenizer: PreTrainedTokenizerBase, prompt: str, images: int) -> str:
    """Format the conversation with one :data:`IMAGE_TOKEN` per image and the generation prompt."""
    content = [*({'type': 'image'} for _ in range(images)), {'type': 'text', 'text': prompt}]
    text = tokenizer.apply_chat_template([{'role': 'user', 'content': content}], tokenize=False,
                                         add_generation_prompt=True)
    return str(text)


def _check(tokenizer: PreTrainedTokenizerBase, prompt: str, max_text_tokens: int) -> None:
    reserved = sorted(token for token in tokenizer.get_added_vocab() if token in prompt)
    if reserved:
        raise PromptError(f'the instruction contains {reserved[0]!r}, which is reserved for the model; '
                          'remove it')
    count = len(tokenizer(prompt, add_special_tokens=False)['input_ids'])
    if count > max_text_tokens:
        raise PromptError(f'the instruction has {count} tokens, at most {max_text_tokens} are allowed: '
                          'shorten it')
