"""Global random states of a process, saved to plain tensors and restored.

Noise and perturbation do not use the global states, because each micro-batch has a seed of its own; the initial weights
of adapters and libraries do.
"""

import random
from pathlib import Path

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def save_random_state(path: Path) -> None:
    """Save the random states of this process; the file holds tensors and numbers only."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    torch.save({'python': [version, list(words), gauss],
                'numpy': [kind, torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, cached],
                'torch': torch.get_rng_state(),
                'cuda': torch.cuda.get_rng_state() if torch.cuda.is_available() else None}, path)


def restore_random_state(path: Path) -> None:
    """Restore what :func:`save_random_state` wrote."""
    state = torch.load(path, map_location='cpu', weights_only=True)
    version, words, gauss = state['python']
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state['numpy']
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state['torch'])
    if state['cuda'] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'])
