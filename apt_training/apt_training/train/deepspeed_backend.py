"""DeepSpeed behind the trainer's port: ZeRO-2 divides the optimizer state, ZeRO-3 the weights as well.

DeepSpeed's own files are read with pickle: take up training state of your own runs only.
"""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from apt_training.train.backends import StateError, Wanted, computes_in_bfloat16
from apt_training.train.config import TrainConfig
from apt_training.train.objective import Objective, Work
from apt_training.train.optim import make_optimizer, parameter_groups, set_rate
from apt_training.train.world import World

TAG = 'deepspeed'
KEPT_WHOLE = 100_000
"""ZeRO-3 leaves weights of fewer elements whole."""


class DeepSpeedBackend:
    """Implements :class:`~apt_training.train.backends.Backend`."""

    def __init__(self, objective: Objective, config: TrainConfig, world: World) -> None:
        deepspeed = _import_deepspeed(world.device)
        self._world, self._zero_stage, self._optim = world, config.zero_stage, config.optim
        groups = parameter_groups(objective, config.optim)
        self._policy = objective.policy
        self._engine, self._optimizer, *_ = deepspeed.initialize(
            model=objective, optimizer=make_optimizer(groups), dist_init_required=False,
            config=engine_config(config, world.device))
        self._gather_small_weights()

    def loss(self, work: Work, seed: int, *, last: bool) -> Tensor:
        """See :class:`~apt_training.train.backends.Backend`; the engine counts passes itself."""
        return self._engine(work, seed)

    def backward(self, loss: Tensor) -> None:
        """See :class:`~apt_training.train.backends.Backend`."""
        self._engine.backward(loss[0])
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()

    def step(self, rate_factor: float) -> float:
        """See :class:`~apt_training.train.backends.Backend`.

        Raises:
            FloatingPointError: DeepSpeed has applied a gradient that is not finite.
        """
        set_rate(self._optimizer, self._optim, rate_factor)
        skipped = self._engine.skipped_steps
        self._engine.step()
        norm = float(self._engine.get_global_grad_norm())
        if not torch.isfinite(torch.tensor(norm)) and self._engine.skipped_steps == skipped:
            raise FloatingPointError('a gradient that is not finite came of a finite loss and is in the weights '
                                     'now; start the run again, it goes on from the last checkpoint')
        return norm

    def weights(self, wanted: Wanted) -> dict[str, Tensor]:
        """See :class:`~apt_training.train.backends.Backend`; in float32 where they learn."""
        from deepspeed.runtime.zero.partition_parameters import GatheredParameters
        from deepspeed.utils import safe_get_full_fp32_param
        whole = {}
        for name, parameter in self._policy.named_parameters():
            if not wanted(name):
                continue
            if parameter.requires_grad:
                whole[name] = safe_get_full_fp32_param(parameter).detach().cpu().clone()
            else:
                with GatheredParameters([parameter], enabled=self._zero_stage == 3):
                    whole[name] = parameter.detach().cpu().clone()
        return whole

    def save(self, folder: Path) -> None:
        """See :class:`~apt_training.train.backends.Backend`."""
        self._engine.save_checkpoint(str(folder), tag=TAG, save_latest=False, exclude_frozen_parameters=True)

    def load(self, folder: Path) -> None:
        """See :class:`~apt_training.train.backends.Backend`."""
        try:
            path, _ = self._engine.load_checkpoint(
                str(folder), tag=TAG, load_module_strict=False, load_lr_scheduler_states=False)
        except Exception as error:
            raise StateError(f'the DeepSpeed state in {folder} cannot be taken up: '
                             f'{(str(error) or type(error).__name__).splitlines()[0]}') from error
        if path is None:
            raise StateError(f'there is no DeepSpeed state in {folder}')
        self._gather_small_weights()

    def _gather_small_weights(self) -> None:
        """ZeRO-3 fetches a module's weights when its ``forward`` is called; gates and arm embeddings belong
        to modules that are used without, so they must be there from the first pass on."""
        kept: list[Any] = getattr(self._optimizer, 'persistent_parameters', [])
        if kept:
            kept[0].all_gather(kept)


def engine_config(config: TrainConfig, device: torch.device) -> dict[str, Any]:
    """DeepSpeed's own configuration for a run."""
    return {
        'train_micro_batch_size_per_gpu': config.batch,
        'gradient_accumulation_steps': config.accumulation,
        'gradient_clipping': config.optim.clip,
        'bf16': {'enabled': computes_in_bfloat16(config, device)},
        'zero_optimization': {'stage': config.zero_stage,
                              'stage3_param_persistence_threshold': KEPT_WHOLE},
        # AdamW of torch, so that a run's numbers do not depend on the back-end.
        'zero_allow_untested_optimizer': True, 'zero_force_ds_cpu_optimizer': False,
        'steps_per_print': 10**9}


def _import_deepspeed(device: torch.device) -> Any:
    if device.type == 'cpu':
        os.environ.setdefault('DS_ACCELERATOR', 'cpu')
    os.environ.setdefault('DS_SKIP_CUDA_CHECK', '1')
    warnings.filterwarnings('ignore', category=FutureWarning, module='torch')
    import deepspeed
    import deepspeed.ops
    # Its loggers do not look at their parents; what matters of what they say is said by this suite.
    logging.getLogger('DeepSpeed').setLevel(logging.ERROR)
    if device.type == 'cpu':
        # Serves inference only, and would be compiled for half a minute.
        deepspeed.ops.__compatible_ops__['deepspeed_shm_comm'] = False
    return deepspeed
