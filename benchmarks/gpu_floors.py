"""The least that a part of a plan can take: its weights and cached keys read once, its products at full rate.

Bytes and operations are counted from the weights and shapes of a real run; bandwidth and rate are what a large copy and
a large product reach on the same device. Launching kernels costs nothing in a floor, activations stay on the chip.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from apt_policy.model.batch import Images, RobotState
from apt_policy.model.fusion import preallocate
from apt_policy.model.policy import Policy

ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class Roofs:
    """What a device reaches."""

    bytes_per_s: float
    """Read and written by a copy."""
    flops_per_s: float
    """Of a square product, two operations for each multiply-add."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a part has to do at least."""

    flops: float
    bytes: float

    def __add__(self, other: 'Work') -> 'Work':
        return Work(flops=self.flops + other.flops, bytes=self.bytes + other.bytes)

    def times(self, count: int) -> 'Work':
        return Work(flops=self.flops * count, bytes=self.bytes * count)

    def floor(self, roofs: Roofs) -> tuple[float, str]:
        """Return seconds, and what bounds them: ``bytes`` or ``flops``."""
        by_bytes, by_flops = self.bytes / roofs.bytes_per_s, self.flops / roofs.flops_per_s
        return max(by_bytes, by_flops), 'bytes' if by_bytes >= by_flops else 'flops'


def measure_roofs(device: torch.device, dtype: torch.dtype, *, copy_bytes: int, side: int) -> Roofs:
    """Copy ``copy_bytes`` and multiply matrices of that ``side``; the best of some rounds counts."""
    return Roofs(bytes_per_s=2 * copy_bytes / _copy_s(device, copy_bytes),
                 flops_per_s=2 * side ** 3 / _product_s(device, dtype, side))


@torch.no_grad()
def count_work(policy: Policy, images: Images, robot: RobotState, noise: Tensor) -> dict[str, Work]:
    """Count the work of the VLM, of an observation and of one denoising step: ``vlm``, ``observe``, ``step``.

    Runs the expert's ordinary layers: packed ones of a CPU do the same work without being counted.
    """
    expert, work = policy.expert, {}
    with _counting(policy.vlm) as counted:
        features = policy.vlm(images)
    work['vlm'] = counted()
    with _counting(expert) as counted:
        context = expert.observe(features, robot, horizon=noise.shape[2])
    cached = sum(_bytes(memory.keys) + _bytes(memory.values) for memory in context.kv_caches)
    work['observe'] = counted() + Work(flops=0, bytes=cached)
    rows = noise.shape[1] * (context.history.shape[2] + noise.shape[2])
    roomy = replace(context, kv_caches=tuple(preallocate(memory, rows) for memory in context.kv_caches))
    modulations = expert.dp_head.modulate(torch.zeros(1, device=noise.device))
    with _counting(expert) as counted:
        expert.denoise(roomy, noise, modulations)
    work['step'] = counted() + Work(flops=0, bytes=cached)
    return work


@contextmanager
def _counting(module: nn.Module) -> Iterator[Callable[[], Work]]:
    """Count operations, and the weights of every module that is called, each once."""
    read: dict[int, int] = {}

    def called(one: nn.Module, _: Any, output: Any) -> None:
        if isinstance(one, nn.Embedding):
            read[id(one.weight)] = _bytes(output)
        else:
            read.update({id(weight): _bytes(weight) for weight in one.parameters(recurse=False)})

    hooks = [one.register_forward_hook(called) for one in module.modules()]
    flops = FlopCounterMode(display=False)
    try:
        # The fused kernels of some devices are not counted; the plain ones have the same products.
        with sdpa_kernel(SDPBackend.MATH), flops:
            yield lambda: Work(flops=flops.get_total_flops(), bytes=sum(read.values()))
    finally:
        for hook in hooks:
            hook.remove()


def _copy_s(device: torch.device, count: int) -> float:
    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return _best_s(lambda: target.copy_(source), device)


def _product_s(device: torch.device, dtype: torch.dtype, side: int) -> float:
    matrix = torch.randn(side, side, device=device).to(dtype)
    return _best_s(lambda: matrix @ matrix, device)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _best_s(work: Callable[[], object], device: torch.device) -> float:
    best = float('inf')
    for _ in range(ROUNDS + 1):
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return best


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
