"""Saving and restoring the complete state of a training run.

A resumed run repeats an uninterrupted one to the bit on the same back-end and number of processes. Under other
conditions it continues with as much of the state as fits, and a warning names the differences. The layout of the
folders is in :mod:`~apt_training.train.run_folder`.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from apt_policy.model.checkpoint import save_checkpoint
from apt_policy.model.policy import Policy
from apt_policy.model.restore import vlm_weights
from apt_training.train.backends import TORCH_LOAD_ERRORS, Backend, TrainingStateError, weights_with_prefix
from apt_training.train.batch_source import BatchSource
from apt_training.train.config import BackendKind, TrainConfig
from apt_training.train.distributed import DistributedContext
from apt_training.train.provenance import git_revision
from apt_training.train.randomness import restore_random_state, save_random_state
from apt_training.train.run_folder import RunFolder, SaveError, check_free_space

log = logging.getLogger(__name__)

FORMAT = 'apt-training-state/1'
STATE_FILE = 'training.json'
EXPERT, VLM = 'expert.', 'vlm.model.'
"""Prefixes of the weights' names in the policy's state dict."""
_METADATA_BYTES = 1_000_000
"""Room for the JSON files and random states of a checkpoint, which take some kilobytes."""


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """Progress of a run; the field names are keys of ``training.json``."""

    iteration: int = 0
    """Number of optimizer steps applied."""
    passes: int = 0
    """Number of micro-batches computed by all ranks together, skipped ones included."""
    bad_batches: int = 0
    """Number of micro-batches skipped because their loss was not finite."""


class CheckpointManager:
    """Writes, restores and prunes the checkpoints of one run; every rank holds one."""

    def __init__(self, run: RunFolder, config: TrainConfig, distributed: DistributedContext, *, policy: Policy,
                 contract: Mapping[str, Any]) -> None:
        self.run = run
        self._config, self._distributed, self._contract = config, distributed, dict(contract)
        self._policy = policy.config
        tuned = vlm_weights(policy.vlm) or {}
        self._saved = {name for name in policy.state_dict()
                       if name.startswith(EXPERT) or name.removeprefix(VLM) in tuned}
        self._size = sum(value.numel() * max(4, value.element_size())
                         for name, value in policy.state_dict().items() if name in self._saved)

    @property
    def bytes_needed(self) -> int:
        """Upper bound of one checkpoint's size [bytes]: weights, their average, two moments and a master copy."""
        return 4 * self._size + (self._size if self._config.ema else 0) + _METADATA_BYTES

    def is_saved(self, name: str) -> bool:
        """Return whether a weight of the policy is part of a checkpoint."""
        return name in self._saved

    def save(self, backend: Backend, batches: BatchSource, progress: TrainingProgress,
             average: Mapping[str, Tensor] | None) -> None:
        """Write a checkpoint completely or not at all. Collective: every rank must call it.

        Args:
            backend: source of weights and optimizer state.
            batches: source of the position in the data.
            progress: progress to record.
            average: averaged weights by name, or None.

        Raises:
            SaveError: the disk is full or not writable; the previous checkpoint remains.
        """
        run, iteration = self.run, progress.iteration
        self._on_all_ranks(lambda: check_free_space(run.folder, self.bytes_needed))
        weights = backend.gather_weights(self.is_saved)
        facts = self._facts(batches, progress)
        self._on_main_process(lambda: run.begin_state(iteration))
        partial = run.partial_state_folder(iteration)
        try:
            self._on_main_process(lambda: (partial / STATE_FILE).write_text(json.dumps(facts, indent=2)))
            self._write_state(backend, partial)
            self._on_main_process(lambda: self._write_weights(weights, average, iteration))
            self._on_main_process(lambda: run.publish_state(iteration))
        finally:
            if self._distributed.is_main_process:
                run.discard_partial_state(iteration)
        self._on_main_process(lambda: run.set_latest(iteration))
        self._on_main_process(lambda: run.prune(self._config.checkpoint))

    def restore(self, backend: Backend, batches: BatchSource, iteration: int) -> TrainingProgress:
        """Restore the training state of ``iteration``; the policy already has the weights.

        Raises:
            TrainingStateError: the state is corrupt.
            DataLoadingError: the state belongs to other data.
        """
        folder = self.run.state_folder(iteration)
        facts = _read_facts(folder)
        same_conditions = not self._warn_about_differences(facts)
        if self._optimizer_fits(facts):
            backend.load(folder)
        batches.load_state_dict(facts['feed'])
        if same_conditions:
            _restore_random_state(folder / f'random_{self._distributed.rank}.pt')
        return TrainingProgress(**facts['progress'])

    def _write_state(self, backend: Backend, folder: Path) -> None:
        # DeepSpeed's save is a collective operation, so an error on one rank must not skip it on the others.
        if self._config.backend is BackendKind.DEEPSPEED:
            with self._save_errors():
                backend.save(folder)
        else:
            self._on_all_ranks(lambda: backend.save(folder))
        self._on_all_ranks(lambda: save_random_state(folder / f'random_{self._distributed.rank}.pt'))

    def _write_weights(self, weights: Mapping[str, Tensor], average: Mapping[str, Tensor] | None,
                       iteration: int) -> None:
        self._save_weights(self.run.checkpoint_folder(iteration), weights, iteration)
        if average is not None:
            self._save_weights(self.run.ema_folder(iteration), {**weights, **average}, iteration)

    def _save_weights(self, folder: Path, weights: Mapping[str, Tensor], iteration: int) -> None:
        save_checkpoint(folder, weights=weights_with_prefix(weights, EXPERT),
                        vlm_weights=weights_with_prefix(weights, VLM) or None, config=self._policy,
                        contract=self._contract, iteration=iteration, git_revision=git_revision())

    def _on_all_ranks(self, action: Callable[[], object]) -> None:
        """Run ``action`` on this rank, and fail on every rank if it fails on any."""
        problem: Exception | None = None
        try:
            with self._save_errors():
                action()
        except SaveError as error:
            problem = error
        if self._distributed.all_reduce_any([problem is not None])[0]:
            raise problem or SaveError("another rank could not write its part of the checkpoint; see that rank's log")

    def _on_main_process(self, action: Callable[[], object]) -> None:
        """Run ``action`` on rank 0, and fail on every rank if it fails."""
        self._on_all_ranks(action if self._distributed.is_main_process else lambda: None)

    def _save_errors(self) -> '_SaveErrors':
        return _SaveErrors(self.run)

    def _facts(self, batches: BatchSource, progress: TrainingProgress) -> dict[str, Any]:
        return {'format': FORMAT, 'progress': asdict(progress), 'feed': batches.state_dict(),
                'torch': torch.__version__, **_conditions(self._config, self._distributed)}

    def _optimizer_fits(self, facts: Mapping[str, Any]) -> bool:
        """Return whether saved optimizer state can be loaded; DDP's does not depend on the number of processes."""
        names = ('backend', 'zero_stage', 'processes')
        now = _conditions(self._config, self._distributed)
        same = {name: facts[name] == now[name] for name in names}
        return same['backend'] and (self._config.backend is BackendKind.DDP or all(same.values()))

    def _warn_about_differences(self, facts: Mapping[str, Any]) -> list[str]:
        """Return how this run's conditions differ from the saved ones, and log it once."""
        now = _conditions(self._config, self._distributed)
        differing = [f'{name} {facts[name]} -> {now[name]}' for name in now if facts[name] != now[name]]
        if differing and self._distributed.is_main_process:
            log.warning('Resuming under other conditions (%s): the result will differ in bits from an uninterrupted '
                        'run', ', '.join(differing))
            if not self._optimizer_fits(facts):
                log.warning('The optimizer state does not fit the new back-end; its moments are reset')
        return differing


class _SaveErrors:
    """Context manager that turns the errors of a full or read-only disk into :class:`SaveError`."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SaveError) or not isinstance(error, Exception):
            return
        # torch reports a failed write as RuntimeError, safetensors as an error of its own.
        if isinstance(error, OSError | RuntimeError) or type(error).__name__ == 'SafetensorError':
            last = self._run.latest_iteration()
            kept = f'{self._run.checkpoint_folder(last)} is kept' if last is not None else 'there is no earlier one'
            raise SaveError(f'the checkpoint could not be written: {error}; {kept}. Free some space and resume with '
                            '--va-conti or --vla-conti') from error


def _conditions(config: TrainConfig, distributed: DistributedContext) -> dict[str, Any]:
    """Return the conditions that a bit-exact resume needs, under their keys in ``training.json``."""
    return {'backend': config.backend.value,
            'zero_stage': config.zero_stage if config.backend is BackendKind.DEEPSPEED else None,
            'processes': distributed.world_size, 'batch': config.batch_size,
            'accumulation': config.accumulation_steps, 'draws': config.noise_samples, 'seed': config.seed}


def _restore_random_state(path: Path) -> None:
    try:
        restore_random_state(path)
    except TORCH_LOAD_ERRORS as error:
        raise TrainingStateError(f'cannot load the random state in {path}: {str(error) or type(error).__name__}'
                                 ) from error


def _read_facts(folder: Path) -> dict[str, Any]:
    path = folder / STATE_FILE
    try:
        facts = json.loads(path.read_text())
        if facts['format'] != FORMAT:
            raise TrainingStateError(f'{path} has format {facts["format"]!r}, expected {FORMAT!r}; resume with the '
                                     'version of the suite that wrote it, or start from the weights alone with '
                                     '--pretrained-ckpt')
        return dict(facts)
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise TrainingStateError(f'cannot read {path}: {error}; start from the weights alone with --pretrained-ckpt, '
                                 f'or point the file "latest" in {folder.parent} to an older checkpoint') from error
