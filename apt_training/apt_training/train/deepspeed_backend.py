"""Training back-end with DeepSpeed: ZeRO-2 partitions the optimizer state, ZeRO-3 the weights as well.

DeepSpeed reads its own files with pickle, so resume only from training state that you trust.
"""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from apt_training.train.backends import NameFilter, TrainingStateError, uses_bfloat16
from apt_training.train.config import TrainConfig
from apt_training.train.distributed import DistributedContext
from apt_training.train.objective import MicroBatch, Objective
from apt_training.train.optim import make_optimizer, parameter_groups, set_learning_rate

TAG = 'deepspeed'
PERSISTENCE_THRESHOLD = 100_000
"""Number of elements below which ZeRO-3 does not partition a weight; DeepSpeed's own default."""


class DeepSpeedBackend:
    """Back-end over DeepSpeed's engine; see :class:`~apt_training.train.backends.Backend`."""

    def __init__(self, objective: Objective, config: TrainConfig, distributed: DistributedContext) -> None:
        deepspeed = _import_deepspeed(distributed.device)
        self._distributed, self._zero_stage, self._optim = distributed, config.zero_stage, config.optim
        groups = parameter_groups(objective, config.optim)
        self._policy = objective.policy
        self._engine, self._optimizer, *_ = deepspeed.initialize(
            model=objective, optimizer=make_optimizer(groups), dist_init_required=False,
            config=engine_config(config, distributed.device))
        self._gather_small_weights()

    def compute_loss(self, micro_batch: MicroBatch, seed: int, *, last: bool) -> Tensor:
        """Compute the loss of one micro-batch; the engine counts micro-batches itself."""
        return self._engine(micro_batch, seed)

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradient, and let the engine count the micro-batch unless it is the last of the step."""
        self._engine.backward(loss[0])
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()

    def step(self, learning_rate_factor: float) -> float:
        """Apply the accumulated gradient; see :class:`~apt_training.train.backends.Backend`.

        Raises:
            FloatingPointError: DeepSpeed applied a gradient that is not finite.
        """
        set_learning_rate(self._optimizer, self._optim, learning_rate_factor)
        skipped = self._engine.skipped_steps
        self._engine.step()
        norm = float(self._engine.get_global_grad_norm())
        if not torch.isfinite(torch.tensor(norm)) and self._engine.skipped_steps == skipped:
            raise FloatingPointError('DeepSpeed applied a gradient that is not finite, so the weights are damaged; '
                                     'resume from the last checkpoint')
        return norm

    def gather_weights(self, wanted: NameFilter) -> dict[str, Tensor]:
        """Return weights by name; trainable ones in float32."""
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
        """Write DeepSpeed's training state into a folder."""
        self._engine.save_checkpoint(str(folder), tag=TAG, save_latest=False, exclude_frozen_parameters=True)

    def load(self, folder: Path) -> None:
        """Load DeepSpeed's training state; see :class:`~apt_training.train.backends.Backend`."""
        try:
            path, _ = self._engine.load_checkpoint(
                str(folder), tag=TAG, load_module_strict=False, load_lr_scheduler_states=False)
        except Exception as error:
            raise TrainingStateError(f'cannot load the DeepSpeed state in {folder}: '
                                     f'{(str(error) or type(error).__name__).splitlines()[0]}') from error
        if path is None:
            raise TrainingStateError(f'there is no DeepSpeed state in {folder}')
        self._gather_small_weights()

    def _gather_small_weights(self) -> None:
        """Gather the weights that ZeRO-3 does not partition.

        ZeRO-3 gathers a module's weights when its ``forward`` is called. Gates and arm embeddings belong to modules
        whose ``forward`` is never called, so they must be present before the first micro-batch.
        """
        persistent: list[Any] = getattr(self._optimizer, 'persistent_parameters', [])
        if persistent:
            persistent[0].all_gather(persistent)


def engine_config(config: TrainConfig, device: torch.device) -> dict[str, Any]:
    """Return DeepSpeed's configuration of a run."""
    return {
        'train_micro_batch_size_per_gpu': config.batch_size,
        'gradient_accumulation_steps': config.accumulation_steps,
        'gradient_clipping': config.optim.clip,
        'bf16': {'enabled': uses_bfloat16(config, device)},
        'zero_optimization': {'stage': config.zero_stage,
                              'stage3_param_persistence_threshold': PERSISTENCE_THRESHOLD},
        # torch's AdamW, so that results do not depend on the back-end.
        'zero_allow_untested_optimizer': True, 'zero_force_ds_cpu_optimizer': False,
        'steps_per_print': 10**9}


def _import_deepspeed(device: torch.device) -> Any:
    if device.type == 'cpu':
        os.environ.setdefault('DS_ACCELERATOR', 'cpu')
    os.environ.setdefault('DS_SKIP_CUDA_CHECK', '1')
    warnings.filterwarnings('ignore', category=FutureWarning, module='torch')
    import deepspeed
    import deepspeed.ops
    # DeepSpeed's loggers do not propagate; this suite logs what matters of their messages.
    logging.getLogger('DeepSpeed').setLevel(logging.ERROR)
    if device.type == 'cpu':
        # This operator serves inference only, and compiling it takes half a minute.
        deepspeed.ops.__compatible_ops__['deepspeed_shm_comm'] = False
    return deepspeed
