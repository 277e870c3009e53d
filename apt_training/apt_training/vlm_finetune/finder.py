"""Finding things in pictures, before talking about them and beside it: a second task for the vision encoder.

An answer is a long way from a pixel: on conversations alone, a small encoder that had learned nothing had not begun to
see after 10,000 of them. A linear map of each vision token says by which words (``red``, ``cube``) what it shows is
called, and where in the camera's frame its middle is; it is there while the model is taught, and no part of what comes
out. An encoder that comes pretrained, with grounding in 3-D as Qwen3-VL's, needs it less.

Letters: V tokens of all pictures, N words of their names.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen3VLForConditionalGeneration

_HEAD = 'finder'
_RARE = -3.0
"""Of a first guess: most words name nothing that a token shows."""
PER_METRE = 10.0
"""Of the loss: a decimetre weighs as much as a word."""


class Finder(nn.Module):
    """The map, around a model's vision encoder."""

    def __init__(self, model: Qwen3VLForConditionalGeneration, words: int) -> None:
        super().__init__()
        self.visual: nn.Module = cast(Any, model.model).visual
        self._words = words
        self.head = nn.Linear(int(model.config.vision_config.out_hidden_size), words + 3)
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            self.head.bias[:words] = _RARE
            self.head.bias[words:] = 0.0
        self._found: list[Tensor] = []
        merger = cast(Any, self.visual).merger
        self._hook = merger.register_forward_hook(lambda *call: self._found.append(self.head(call[-1].float())))

    def forward(self, pixel_values: Tensor, image_grid_thw: Tensor, marks: Tensor,
                places: Tensor | None = None) -> dict[str, Tensor]:
        """Look, and nothing else; the loss alone, as transformers' trainer takes it."""
        self.visual(pixel_values, grid_thw=image_grid_thw)
        return {'loss': self.loss(marks, places)}

    def loss(self, marks: Tensor, places: Tensor | None) -> Tensor:
        """Of what the last pass found, words (V, N) and places (V, 3) [m].

        Cross-entropy summed over words and averaged over tokens, and the L1 distance [dm] over those that show a thing.
        """
        found = self._found.pop()
        names, middles = found[:, :self._words], found[:, self._words:]
        loss = F.binary_cross_entropy_with_logits(names, marks.float(), reduction='sum') / len(marks)
        if places is None:
            return loss + 0.0 * middles.sum()
        shows = ~places.isnan().any(-1, keepdim=True)
        apart = (middles - PER_METRE * places.nan_to_num()).abs() * shows
        return loss + apart.sum() / shows.sum().clamp(min=1)

    def forget(self) -> None:
        """Drop what a pass without marks found."""
        self._found.clear()

    def join(self, model: nn.Module) -> None:
        """Make the map a part of the model, so that saving, resuming and many processes know of it."""
        setattr(model, _HEAD, self.head)

    def leave(self, model: nn.Module) -> None:
        """Take the map away; the model is as it was, but for what it has learned."""
        self._hook.remove()
        delattr(model, _HEAD)
