"""Exponential moving average of the weights, kept by the rank that writes checkpoints."""

from collections.abc import Mapping

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from apt_training.train.config import EmaConfig


class ExponentialMovingAverage:
    """Average of gathered weights: ``average = decay * average + (1 - decay) * weights``; None before its first update.

    The weights of a ZeRO run exist as whole tensors only after they are gathered, so the average is kept by name and
    not as a copy of the module (``AveragedModel``); the update rule is that of ``torch.optim.swa_utils``.
    """

    def __init__(self, config: EmaConfig, weights: Mapping[str, Tensor] | None = None) -> None:
        """Start without an average, or continue from saved ``weights``."""
        self._config = config
        self._update_average = get_ema_multi_avg_fn(config.decay)
        self._average = None if weights is None else {name: value.float().clone() for name, value in weights.items()}

    @property
    def weights(self) -> Mapping[str, Tensor] | None:
        """Average by name, float32; None before the first update."""
        return self._average

    def is_active(self, iteration: int) -> bool:
        """Return whether weights are averaged at ``iteration``."""
        return iteration >= self._config.start

    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Update the average with the weights after one more iteration."""
        if self._average is None:
            self._average = {name: value.float().clone() for name, value in weights.items()}
            return
        names = list(weights)
        self._update_average([self._average[name] for name in names], [weights[name].float() for name in names], 1)
