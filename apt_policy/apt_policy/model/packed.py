"""The expert on a CPU: linear layers whose weights were laid out for oneDNN beforehand.

With the 66 rows of a chunk, a quarter of an ordinary product's time goes into laying out
the weights, at every step anew. Only inference on a CPU in float32 uses this; the numbers
are those of the ordinary layers up to rounding. Knows nothing of what the layers are for.
"""

import copy
import math
import platform
from typing import TypeVar

import torch
from torch import Tensor, nn

from apt_policy.model.layers import GatedFeedForward

TWICE_LINEAR = 2 * math.sqrt(2 / math.pi)
TWICE_CUBIC = 0.044715 * TWICE_LINEAR

Module = TypeVar('Module', bound=nn.Module)


class PackedLinear(nn.Module):
    """``nn.Linear`` with a packed weight."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, 'none', [], '')

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """Followed by a product with ``factor``."""
        return torch.ops.mkldnn._linear_pointwise.binary(x, factor, self._packed, self.bias, 'mul')


class PackedFeedForward(nn.Module):
    """:class:`GatedFeedForward`, its pointwise part fused into the products."""

    def __init__(self, plain: GatedFeedForward) -> None:
        super().__init__()
        self.gate_proj = PackedLinear(plain.gate_proj)
        self.up_proj = PackedLinear(plain.up_proj)
        self.down_proj = PackedLinear(plain.down_proj)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to the same shape."""
        return self.down_proj(self.up_proj.times(x, gelu_tanh(self.gate_proj(x))))


def gelu_tanh(x: Tensor) -> Tensor:
    """``F.gelu(x, approximate='tanh')`` by way of the sigmoid, which takes a CPU half the time.

    0.5 (1 + tanh(u)) = sigmoid(2 u), and 2 u = x (TWICE_LINEAR + TWICE_CUBIC x^2).
    """
    gate = (x * x).mul_(TWICE_CUBIC).add_(TWICE_LINEAR).mul_(x).sigmoid_()
    return gate.mul_(x)


def can_pack(module: nn.Module) -> bool:
    """Whether this machine's torch can, and all of ``module`` is float32 on the CPU."""
    suits = all(p.device.type == 'cpu' and p.dtype == torch.float32 for p in module.parameters())
    return (suits and platform.machine() in ('x86_64', 'AMD64') and torch.backends.mkldnn.is_available()
            and hasattr(torch.ops.mkldnn, '_linear_pointwise'))


def pack(module: Module) -> Module:
    """A copy for inference, its products packed; all other parameters are shared with ``module``."""
    twin = copy.deepcopy(module, memo={id(p): p for p in module.parameters()})
    for parent in [m for m in twin.modules() if not isinstance(m, GatedFeedForward)]:
        for name, child in list(parent.named_children()):
            if isinstance(child, GatedFeedForward):
                setattr(parent, name, PackedFeedForward(child))
            elif isinstance(child, nn.Linear):
                setattr(parent, name, PackedLinear(child))
    return twin
