"""A small Qwen3-VL that has learned nothing, with a tokenizer made for what it will be told.

For machines without a pretrained one. The class is the true one; only its size and its words are small.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration

from apt_policy.model.vlm.tiny import SPECIAL_TOKENS, as_qwen_tokenizer, tiny_config, tiny_model

VOCABULARY = 1024
_INITIAL = 0.08
"""Standard deviation of first weights: of about one over the root of the width."""
# A word with the space before it is one piece to merge in, numbers and letters together: " x17" becomes one token.
_WORDS = Regex(r' ?[A-Za-z0-9]+|[^A-Za-z0-9]')


def tokenizer_of(conversations: Iterable[Sequence[Mapping[str, Any]]]) -> PreTrainedTokenizerFast:
    """A byte-level BPE whose merges are those of chat messages, with Qwen's special tokens and chat format."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(_WORDS, 'isolated'), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(_words_of(conversations), trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL_TOKENS), initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False))
    return as_qwen_tokenizer(core)


def _words_of(conversations: Iterable[Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """All that is said, and the names of who says it: they stand before every sentence."""
    for messages in conversations:
        for message in messages:
            yield message['role']
            yield from (part['text'] for part in message['content'] if part['type'] == 'text')


def newborn(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3VLForConditionalGeneration:
    """Random weights from ``seed``; eyes half as wide again as those of the VLM that tests use."""
    config = tiny_config(tokenizer)
    # 0.02 is made for widths of a thousand: here it would leave words too faint to be told apart.
    config.text_config.initializer_range = config.vision_config.initializer_range = _INITIAL
    config.vision_config.hidden_size, config.vision_config.intermediate_size = 96, 192
    config.vision_config.num_heads = 3
    return tiny_model(config, seed)
