"""Attention supervision: an auxiliary task that teaches the language model to attend to the object of a question.

Attention connects a question to an object in an image, and answers alone teach a small model this slowly: after 16,000
conversations the tokens of an instruction did not encode the position of its object. Here half the heads of one layer
are trained to attend, at the token before an answer, to the vision tokens that show the object, and a linear map
predicts the object's centre in the first camera's frame from the layer's output. The map is removed from the saved
model.

The layer is a tap from which the expert's actions read language: one of those after its odd blocks, except the last
one (:mod:`apt_policy.model.fusion`). Information that appears only after the last of them cannot reach the actions.

Letters: B batch, L tokens, d width, Q questions about an object.
"""

from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen3VLForConditionalGeneration

from apt_policy.model.config import TAP_STRIDE
from apt_training.vlm_finetune.grounding_head import PER_METRE

_MAP = 'pointer'
"""Name of the map in training checkpoints."""
_MIN_ATTENTION = 1e-6
"""Lower bound of the attention in the logarithm."""


def supervised_layer(layers: int) -> int:
    """Return the supervised layer of ``layers`` decoder layers: the fourth of 10, the tenth of 28."""
    taps = len(range(0, layers, TAP_STRIDE))
    return min(TAP_STRIDE * max(1, 2 * (taps // 4) - 1), layers - 1)


class AttentionSupervision(nn.Module):
    """Hooks that read a model's attention, and the linear map of positions."""

    def __init__(self, model: Qwen3VLForConditionalGeneration) -> None:
        """Install hooks in the supervised layer of ``model``, and switch its language model to eager attention."""
        super().__init__()
        language: Any = cast(Any, model.model).language_model
        self._implementation = language.config._attn_implementation
        # The other implementations do not return attention weights.
        model.set_attn_implementation({'text_config': 'eager'})
        self._heads = max(1, language.config.num_attention_heads // 2)
        self.place = nn.Linear(language.config.hidden_size, 3)
        nn.init.zeros_(self.place.weight)
        nn.init.zeros_(self.place.bias)
        self._attention: list[Tensor] = []
        self._outputs: list[Tensor] = []
        layer = language.layers[supervised_layer(len(language.layers))]
        self._hooks = (layer.self_attn.register_forward_hook(lambda *call: self._attention.append(call[-1][1])),
                       layer.register_forward_hook(lambda *call: self._outputs.append(call[-1])))

    def loss(self, questions: Tensor, target_tokens: Tensor, target_positions: Tensor) -> Tensor:
        """Compute the loss of the last forward pass.

        It is minus the logarithm of the share of attention on the target tokens, averaged over questions that have
        some, plus the L1 distance [dm] to the target position, averaged over questions that have one.

        Args:
            questions: (Q, 2) row and column of the token before each answer.
            target_tokens: (Q, L) bool, tokens of that row that show the object.
            target_positions: (Q, 3) centre of the object in the first camera's frame [m], or NaN.
        """
        row, token = questions.T
        attention = self._attention.pop()[row, :self._heads, token].float()
        log_share = (attention * target_tokens[:, None]).sum(-1).clamp(min=_MIN_ATTENTION).log().mean(-1)
        shown, placed = target_tokens.any(-1), ~target_positions.isnan().any(-1)
        output = self._outputs.pop()[row, token].float()
        predicted = self.place(F.rms_norm(output, output.shape[-1:]))
        distance = (predicted - PER_METRE * target_positions.nan_to_num()).abs().sum(-1)
        return ((distance * placed).sum() / placed.sum().clamp(min=1)
                - (log_share * shown).sum() / shown.sum().clamp(min=1))

    def clear(self) -> None:
        """Drop the outputs of forward passes without a loss."""
        self._attention.clear()
        self._outputs.clear()

    def attach(self, model: nn.Module) -> None:
        """Register the map in the model, so that checkpoints and DDP include it."""
        setattr(model, _MAP, self.place)

    def detach(self, model: Qwen3VLForConditionalGeneration) -> None:
        """Remove the map and the hooks from the model, and restore its attention implementation."""
        for hook in self._hooks:
            hook.remove()
        delattr(model, _MAP)
        model.set_attn_implementation({'text_config': self._implementation})
