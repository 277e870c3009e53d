"""Training objective as one module: policy, perturbation and noise behind a single ``forward``.

DDP and DeepSpeed wrap this module. The noise of a micro-batch is drawn from a seed of its own, so resuming needs no
state of a noise generator, and a micro-batch has the same loss on whichever rank it is computed.

Letters: B batch, L vision-language tokens.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from apt_policy.model.batch import VlFeatures, move
from apt_policy.model.perturb import TURN_ONLY, Perturbation
from apt_policy.model.policy import Policy, TrainingBatch

LOSS_TERMS = ('total', 'position', 'rotation', 'gripper')
"""Names of the losses that :class:`Objective` returns, in order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MicroBatch:
    """Input of one gradient-accumulation step on one rank."""

    batch: TrainingBatch
    sources: tuple[str, ...]
    """(B,) names of the samples, for messages and for the feature cache."""
    features: VlFeatures | None = None
    """Features of a frozen VLM where they are known already."""

    def to(self, device: torch.device) -> 'MicroBatch':
        """Return a copy on ``device``; images that features replace are not moved."""
        images = self.batch.images if self.features is not None else move(self.batch.images, device)
        batch = TrainingBatch(images=images, robot=move(self.batch.robot, device),
                              future=self.batch.future.to(device))
        features = None if self.features is None else move(self.features, device)
        return replace(self, batch=batch, features=features)


class Objective(nn.Module):
    """Module that computes the training losses of a policy."""

    def __init__(self, policy: Policy, *, perturbation: Perturbation = TURN_ONLY, noise_samples: int = 1,
                 autocast: torch.dtype | None = None) -> None:
        """Wrap a policy.

        Args:
            policy: policy to train.
            perturbation: perturbation of the observation.
            noise_samples: noise samples per observation; they share the VLM's features.
            autocast: data type of autocast; None: the data type of the weights.
        """
        super().__init__()
        self.policy = policy
        self._perturbation, self._noise_samples, self._autocast = perturbation, noise_samples, autocast

    def forward(self, micro_batch: MicroBatch, seed: int) -> Tensor:
        """Compute the losses with noise and perturbation drawn from ``seed``.

        Returns:
            (4,) float32 :data:`LOSS_TERMS`.
        """
        device = micro_batch.batch.future.device
        generator = torch.Generator(device).manual_seed(seed)
        with torch.autocast(device.type, dtype=self._autocast, enabled=self._autocast is not None):
            if micro_batch.features is None:
                loss = self.policy(micro_batch.batch, self._perturbation, generator, self._noise_samples)
            else:
                loss = self.policy.loss(micro_batch.features, micro_batch.batch.robot, micro_batch.batch.future,
                                        self._perturbation, generator, self._noise_samples)
        return torch.stack([loss.total, loss.position, loss.rotation, loss.gripper]).float()


def micro_batch_seed(seed: int, index: int) -> int:
    """Return the seed of the ``index``-th micro-batch of a run, counted over all ranks."""
    # Fibonacci hashing: multiplying by 2^64 over the golden ratio spreads neighbours over all 63 bits.
    return ((seed << 40) + index) * 0x9E3779B97F4A7C15 & (2**63 - 1)
