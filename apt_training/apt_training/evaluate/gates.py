"""How far each block of an expert is open to the VLM: its fusion gates, as numbers.

A gate of 1 keeps the expert's own vision-language stream, 0 puts the VLM layer's feature in its
place; an untrained gate is 0.5 (``model.fusion``).
"""

from dataclasses import dataclass
from typing import Any

import torch

from apt_policy.model.config import TAP_STRIDE
from apt_policy.model.expert import Expert


@dataclass(frozen=True, kw_only=True)
class GateLevel:
    """The gate behind one block, over its channels; each 0..1."""

    block: int
    vlm_layer: int
    """Decoder layer whose feature it mixes in."""
    mean: float
    spread: float
    """Standard deviation."""
    least: float
    greatest: float


@torch.no_grad()
def gate_levels(expert: Expert) -> tuple[GateLevel, ...]:
    """One per block but the last, behind which nothing is mixed."""
    stack = expert.dp_head.traj_context_attn
    levels = []
    for block in range(len(stack.blocks) - 1):
        tap = stack.tap_after(block)
        gate = torch.sigmoid(stack.gate[tap].double())
        levels.append(GateLevel(
            block=block, vlm_layer=TAP_STRIDE * tap, mean=float(gate.mean()), spread=float(gate.std(correction=0)),
            least=float(gate.min()), greatest=float(gate.max())))
    return tuple(levels)


def gates_to_list(levels: tuple[GateLevel, ...]) -> list[dict[str, Any]]:
    """Ready for JSON."""
    return [vars(level).copy() for level in levels]
