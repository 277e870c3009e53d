"""What is minimised, as one module: policy, perturbation and noise behind a single ``forward``.

Wrappers for many devices fit around it. The noise of a pass is drawn from that pass's own seed,
so a run needs no state of a noise generator to go on, and the same pass costs the same wherever
it is computed.

Letters: B batch, L vision-language tokens.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from apt_policy.model.batch import VlFeatures, move
from apt_policy.model.perturb import TURN_ONLY, Perturbation
from apt_policy.model.policy import Policy, TrainingBatch

PARTS = ('total', 'position', 'rotation', 'gripper')
"""Of what :class:`Objective` returns, in order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """What one process computes in one pass."""

    batch: TrainingBatch
    sources: tuple[str, ...]
    """(B,) names of the samples, for messages and for the feature cache."""
    features: VlFeatures | None = None
    """What a frozen VLM says of the batch, where that is known already."""

    def to(self, device: torch.device) -> 'Work':
        """The same on a device; images stay where they are if features stand in for them."""
        images = self.batch.images if self.features is not None else move(self.batch.images, device)
        batch = TrainingBatch(images=images, robot=move(self.batch.robot, device),
                              future=self.batch.future.to(device))
        features = None if self.features is None else move(self.features, device)
        return replace(self, batch=batch, features=features)


class Objective(nn.Module):
    """Computes in ``autocast`` if that is given, in the weights' own type if not."""

    def __init__(self, policy: Policy, *, perturbation: Perturbation = TURN_ONLY, draws: int = 1,
                 autocast: torch.dtype | None = None) -> None:
        super().__init__()
        self.policy = policy
        self._perturbation, self._draws, self._autocast = perturbation, draws, autocast

    def forward(self, work: Work, seed: int) -> Tensor:
        """(4,) float32: :data:`PARTS`, noise and perturbation drawn from ``seed``."""
        device = work.batch.future.device
        generator = torch.Generator(device).manual_seed(seed)
        with torch.autocast(device.type, dtype=self._autocast, enabled=self._autocast is not None):
            if work.features is None:
                loss = self.policy(work.batch, self._perturbation, generator, self._draws)
            else:
                loss = self.policy.loss(work.features, work.batch.robot, work.batch.future,
                                        self._perturbation, generator, self._draws)
        return torch.stack([loss.total, loss.position, loss.rotation, loss.gripper]).float()


def pass_seed(seed: int, index: int) -> int:
    """Of the ``index``-th pass of a run, counted over all processes."""
    # Multiplying by an odd constant (of the golden ratio) spreads neighbours over all 63 bits.
    return ((seed << 40) + index) * 0x9E3779B97F4A7C15 & (2**63 - 1)
