"""Grounding head: an auxiliary task that teaches the vision encoder which object each token shows, and where.

On conversations alone, a small encoder with random weights had not learned to recognize objects after 10,000 of them.
A linear map of each vision token predicts the words (``red``, ``cube``) that name what the token shows, and the centre
of the object in the camera's frame. It is removed from the saved model. A pretrained encoder with 3-D grounding such as
Qwen3-VL's needs it less.

Letters: V tokens of all images, N words of names.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen3VLForConditionalGeneration

_HEAD = 'finder'
"""Name of the head in training checkpoints."""
_INITIAL_LOGIT = -3.0
"""Initial logit of each word, because most words do not name what a token shows."""
PER_METRE = 10.0
"""Scale of distances in the loss [1/m]: a decimetre weighs as much as a word."""


class GroundingHead(nn.Module):
    """Linear head over a model's vision encoder."""

    def __init__(self, model: Qwen3VLForConditionalGeneration, words: int) -> None:
        """Create the head.

        Args:
            model: model whose vision encoder is trained.
            words: N, number of words that name objects.
        """
        super().__init__()
        self.visual: nn.Module = cast(Any, model.model).visual
        self._words = words
        self.head = nn.Linear(int(model.config.vision_config.out_hidden_size), words + 3)
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            self.head.bias[:words] = _INITIAL_LOGIT
            self.head.bias[words:] = 0.0
        self._outputs: list[Tensor] = []
        merger = cast(Any, self.visual).merger
        self._hook = merger.register_forward_hook(lambda *call: self._outputs.append(self.head(call[-1].float())))

    def forward(self, pixel_values: Tensor, image_grid_thw: Tensor, marks: Tensor,
                places: Tensor | None = None) -> dict[str, Tensor]:
        """Run the vision encoder alone, and return the loss in the form that the trainer of transformers expects.

        Args:
            pixel_values: image patches.
            image_grid_thw: patch grid of each image.
            marks: (V, N) bool, words that name what a token shows.
            places: (V, 3) centre of the shown object in the camera's frame [m], or NaN; None: names only.
        """
        self.visual(pixel_values, grid_thw=image_grid_thw)
        return {'loss': self.loss(marks, places)}

    def loss(self, marks: Tensor, places: Tensor | None) -> Tensor:
        """Compute the loss of the last forward pass.

        It is the cross-entropy summed over words and averaged over tokens, plus the mean L1 distance [dm] of tokens
        that show an object.

        Args:
            marks: (V, N) bool, words that name what a token shows.
            places: (V, 3) centre of the shown object in the camera's frame [m], or NaN; None: names only.
        """
        output = self._outputs.pop()
        names, centres = output[:, :self._words], output[:, self._words:]
        loss = F.binary_cross_entropy_with_logits(names, marks.float(), reduction='sum') / len(marks)
        if places is None:
            return loss + 0.0 * centres.sum()
        has_place = ~places.isnan().any(-1, keepdim=True)
        distance = (centres - PER_METRE * places.nan_to_num()).abs() * has_place
        return loss + distance.sum() / has_place.sum().clamp(min=1)

    def clear(self) -> None:
        """Drop the outputs of forward passes without a loss."""
        self._outputs.clear()

    def attach(self, model: nn.Module) -> None:
        """Register the head in the model, so that checkpoints and DDP include it."""
        setattr(model, _HEAD, self.head)

    def detach(self, model: nn.Module) -> None:
        """Remove the head and its hook from the model."""
        self._hook.remove()
        delattr(model, _HEAD)
