"""The running average of the weights, kept by the process that writes checkpoints."""

from collections.abc import Mapping

import torch
from torch import Tensor

from apt_training.train.config import EmaConfig


class WeightAverage:
    """Empty until its first iteration, then ``average = decay * average + (1 - decay) * weights``."""

    def __init__(self, config: EmaConfig, weights: Mapping[str, Tensor] | None = None) -> None:
        """Start empty, or go on from saved ``weights``."""
        self._config = config
        self._average = None if weights is None else {name: value.float().clone() for name, value in weights.items()}

    @property
    def weights(self) -> Mapping[str, Tensor] | None:
        """The average by name, float32; None before it began."""
        return self._average

    def begins(self, iteration: int) -> bool:
        """Whether it is fed at ``iteration``."""
        return iteration >= self._config.start

    def add(self, weights: Mapping[str, Tensor]) -> None:
        """Take in the weights behind one more iteration."""
        if self._average is None:
            self._average = {name: value.float().clone() for name, value in weights.items()}
            return
        with torch.no_grad():
            for name, value in weights.items():
                self._average[name].lerp_(value.float(), 1.0 - self._config.decay)
