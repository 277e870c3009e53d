"""The policies that ``gpu.py`` times: the shipped one, and sizes built from a configuration with random weights.

Nothing is downloaded; of random weights the speed and the memory are those of learned ones.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, Qwen3VLConfig

from apt_policy.core.contract import RobotContract, load_contract
from apt_policy.core.shipped import share_folders, shipped_contract
from apt_policy.model.checkpoint import read_checkpoint
from apt_policy.model.config import ExpertConfig, ExpertSize, PolicyConfig, TrainingStage, VlmConfig
from apt_policy.model.expert import Expert
from apt_policy.model.policy import Policy
from apt_policy.model.restore import build_policy
from apt_policy.model.vlm.bridge import VlmBridge
from apt_policy.model.vlm.load import Backbone
from apt_policy.model.vlm.pixels import ImageSpec
from apt_policy.model.vlm.tiny import tiny_config, tiny_tokenizer

# Of Qwen/Qwen3-VL-2B-Instruct's config.json.
QWEN3_VL_2B_TEXT: dict[str, Any] = {
    'vocab_size': 151936, 'hidden_size': 2048, 'intermediate_size': 6144, 'num_hidden_layers': 28,
    'num_attention_heads': 16, 'num_key_value_heads': 8, 'head_dim': 128, 'initializer_range': 0.02,
    'rope_parameters': {'rope_type': 'default', 'rope_theta': 5e6, 'mrope_interleaved': True,
                        'mrope_section': [24, 20, 20]}}
QWEN3_VL_2B_VISION: dict[str, Any] = {
    'depth': 24, 'hidden_size': 1024, 'intermediate_size': 4096, 'num_heads': 16, 'out_hidden_size': 2048,
    'num_position_embeddings': 2304, 'deepstack_visual_indexes': [5, 11, 17], 'initializer_range': 0.02}
BASE_WEIGHTS = 2.3e9
"""Of the VLM and the expert of ``base``, 2.23e9 rounded up."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """A policy by its size, and the robot that it drives."""

    contract: str
    """Shipped contract: cameras, image size, arms and horizon."""
    checkpoint: str = ''
    """Shipped checkpoint; empty: random weights."""
    expert: ExpertSize = ExpertSize.TINY
    big_vlm: bool = False
    """The VLM's shape where there is no checkpoint: Qwen3-VL-2B's, or the tiny one's."""


SIZES = {
    'aloha_small': Size(contract='aloha_small.yaml', checkpoint='aloha_small'),
    'base': Size(contract='aloha.yaml', expert=ExpertSize.BASE, big_vlm=True),
    'tiny': Size(contract='aloha_small.yaml')}


def build(size: Size, device: torch.device, dtype: str) -> tuple[Policy, RobotContract]:
    """Build a policy, VLM and expert in ``dtype``, and load its contract."""
    contract = load_contract(shipped_contract(size.contract))
    if size.checkpoint:
        checkpoint = read_checkpoint(_checkpoint(size.checkpoint))
        vlm = replace(checkpoint.vlm or VlmConfig(), dtype=dtype)
        policy = build_policy(checkpoint, device=device, vlm=vlm)
    else:
        policy = _random_policy(size, device, dtype)
    policy.expert.to(getattr(torch, dtype))
    return policy, contract


def needed_bytes(size: Size, dtype: str) -> float:
    """Estimate the memory of a size: its weights, and as much again as half of them for everything else."""
    width = torch.empty(0, dtype=getattr(torch, dtype)).element_size()
    return 1.5 * BASE_WEIGHTS * width if size.big_vlm else 1e9


def _random_policy(size: Size, device: torch.device, dtype: str) -> Policy:
    tokenizer = tiny_tokenizer()
    config = tiny_config(tokenizer)
    if size.big_vlm:
        fields = config.to_dict()
        config = Qwen3VLConfig(**{**fields, 'text_config': {**fields['text_config'], **QWEN3_VL_2B_TEXT},
                                  'vision_config': {**fields['vision_config'], **QWEN3_VL_2B_VISION}})
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        # Drawn on the device: on a CPU, two thousand million numbers take minutes.
        model = AutoModel.from_config(config, dtype=getattr(torch, dtype), attn_implementation='sdpa')
    bridge = VlmBridge(VlmConfig(name='random weights', dtype=dtype),
                       Backbone(model=model.to(device), tokenizer=tokenizer, image=ImageSpec()))
    width, heads = size.expert.value
    expert = ExpertConfig(stage=TrainingStage.VLA, width=width, heads=heads, vlm_width=bridge.width, taps=bridge.taps)
    return Policy(PolicyConfig(expert=expert, vlm=bridge.config), bridge, Expert(expert).to(device))


def _checkpoint(name: str) -> Path:
    found = [folder / 'checkpoints' / name for folder in share_folders('apt_sim')]
    return next((path for path in found if path.is_dir()), Path(name))
