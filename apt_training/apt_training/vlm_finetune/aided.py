"""transformers' trainer with the losses of second tasks beside the model's own."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, Trainer

from apt_training.vlm_finetune.finder import Finder
from apt_training.vlm_finetune.lesson import ASKED, MARKS, MEANT_AT, PLACES, SHOWN
from apt_training.vlm_finetune.pointer import Pointer


class AidedTrainer(Trainer):
    """Also finds in pictures, and points at what is meant, for as much as there is of either."""

    def __init__(self, *, finder: Finder | None, pointer: Pointer | None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._finder, self._pointer = finder, pointer

    def compute_loss(self, model: PreTrainedModel, inputs: dict[str, Any], return_outputs: bool = False,
                     num_items_in_batch: Tensor | int | None = None) -> Any:
        """See :meth:`transformers.Trainer.compute_loss`."""
        marks, places = (inputs.pop(key, None) for key in (MARKS, PLACES))
        asked, shown, meant_at = (inputs.pop(key, None) for key in (ASKED, SHOWN, MEANT_AT))
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        learns = torch.is_grad_enabled()
        if self._finder is not None:
            if learns and marks is not None:
                loss = loss + self._finder.loss(marks, places)
            self._finder.forget()
        if self._pointer is not None:
            if learns and asked is not None:
                loss = loss + self._pointer.loss(asked, shown, meant_at)
            self._pointer.forget()
        return (loss, outputs) if return_outputs else loss
