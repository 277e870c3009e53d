"""Pointing at what is meant: a second task for the language model, beside answering.

A question is bound to a thing in a picture by attention, and answers alone teach a small model that slowly: after
16,000 conversations nothing in the tokens of an instruction told where its thing stands. So half the heads of one
layer are taught to look, where an answer is about to begin, at the vision tokens that show what the question is about;
and a linear map says from what that layer gives where its middle is in the first camera's frame. The map is no part of
what comes out.

The layer is a tap that the expert's actions read language from: those behind its odd blocks, the last one excepted
(:mod:`apt_policy.model.fusion`). What is known only behind the last of them comes too late.

Letters: B batch, L tokens, d width, Q questions that mean a thing.
"""

from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen3VLForConditionalGeneration

from apt_policy.model.config import TAP_STRIDE
from apt_training.vlm_finetune.finder import PER_METRE

_MAP = 'pointer'
_LEAST = 1e-6
"""Attention that counts as none."""


def pointing_layer(layers: int) -> int:
    """Of so many decoder layers the one that points: the fourth of ten, the tenth of 28."""
    taps = len(range(0, layers, TAP_STRIDE))
    return min(TAP_STRIDE * max(1, 2 * (taps // 4) - 1), layers - 1)


class Pointer(nn.Module):
    """The map, and hooks that read a model's attention."""

    def __init__(self, model: Qwen3VLForConditionalGeneration) -> None:
        super().__init__()
        language: Any = cast(Any, model.model).language_model
        self._usual = language.config._attn_implementation
        # The other implementations keep their attention to themselves.
        model.set_attn_implementation({'text_config': 'eager'})
        self._heads = max(1, language.config.num_attention_heads // 2)
        self.place = nn.Linear(language.config.hidden_size, 3)
        nn.init.zeros_(self.place.weight)
        nn.init.zeros_(self.place.bias)
        self._attention: list[Tensor] = []
        self._given: list[Tensor] = []
        layer = language.layers[pointing_layer(len(language.layers))]
        self._hooks = (layer.self_attn.register_forward_hook(lambda *call: self._attention.append(call[-1][1])),
                       layer.register_forward_hook(lambda *call: self._given.append(call[-1])))

    def loss(self, asked: Tensor, shown: Tensor, meant_at: Tensor) -> Tensor:
        """Of the last pass, for what :class:`~apt_training.vlm_finetune.lesson.Lesson` says of questions.

        Minus the logarithm of the share of attention on ``shown``, over questions whose thing is shown, and the L1
        distance [dm] to ``meant_at``, over those that have one.
        """
        row, token = asked.T
        attention = self._attention.pop()[row, :self._heads, token].float()
        looked = (attention * shown[:, None]).sum(-1).clamp(min=_LEAST).log().mean(-1)
        seen, placed = shown.any(-1), ~meant_at.isnan().any(-1)
        given = self._given.pop()[row, token].float()
        told = self.place(F.rms_norm(given, given.shape[-1:]))
        apart = (told - PER_METRE * meant_at.nan_to_num()).abs().sum(-1)
        return (apart * placed).sum() / placed.sum().clamp(min=1) - (looked * seen).sum() / seen.sum().clamp(min=1)

    def forget(self) -> None:
        """Drop what is left of passes that nobody asked about."""
        self._attention.clear()
        self._given.clear()

    def join(self, model: nn.Module) -> None:
        """Make the map a part of the model, so that saving, resuming and many processes know of it."""
        setattr(model, _MAP, self.place)

    def leave(self, model: Qwen3VLForConditionalGeneration) -> None:
        """Take the map away; the model is as it was, but for what it has learned."""
        for hook in self._hooks:
            hook.remove()
        delattr(model, _MAP)
        model.set_attn_implementation({'text_config': self._usual})
