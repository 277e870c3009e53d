"""Saving all that a run needs to go on, and going on from it.

To the bit on the same back-end and the same processes; otherwise as well as possible, with a warning
that says what differs. Where the folders lie is ``saving``'s.
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
from apt_training.train.backends import UNREADABLE, Backend, StateError, weights_of
from apt_training.train.config import BackendKind, TrainConfig
from apt_training.train.feed import Feed
from apt_training.train.provenance import git_revision
from apt_training.train.randomness import restore_random_state, save_random_state
from apt_training.train.saving import RunFolder, SaveError, require_space
from apt_training.train.world import World

log = logging.getLogger(__name__)

FORMAT = 'apt-training-state/1'
STATE_FILE = 'training.json'
EXPERT, VLM = 'expert.', 'vlm.model.'


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is."""

    iteration: int = 0
    """Steps applied."""
    passes: int = 0
    """Passes computed by all processes together, those left out included."""
    bad_batches: int = 0


class Snapshots:
    """Of one run, on every process alike."""

    def __init__(self, run: RunFolder, config: TrainConfig, world: World, *, policy: Policy,
                 contract: Mapping[str, Any]) -> None:
        self.run = run
        self._config, self._world, self._contract = config, world, dict(contract)
        self._policy = policy.config
        tuned = vlm_weights(policy.vlm) or {}
        self._saved = {name for name in policy.state_dict()
                       if name.startswith(EXPERT) or name.removeprefix(VLM) in tuned}
        self._size = sum(value.numel() * max(4, value.element_size())
                         for name, value in policy.state_dict().items() if name in self._saved)

    @property
    def bytes_needed(self) -> int:
        """Of one snapshot, at most: weights, their average, two moments and a master copy of each."""
        return 4 * self._size + (self._size if self._config.ema else 0) + 1_000_000

    def wanted(self, name: str) -> bool:
        """Whether a weight of the policy goes into a checkpoint."""
        return name in self._saved

    def save(self, backend: Backend, feed: Feed, progress: Progress,
             average: Mapping[str, Tensor] | None) -> None:
        """Write a snapshot, complete or not at all; every process takes part.

        Raises:
            SaveError: the disk is full, or may not be written; the one before stays in force.
        """
        run, iteration = self.run, progress.iteration
        self._together(lambda: require_space(run.folder, self.bytes_needed))
        weights = backend.weights(self.wanted)
        facts = self._facts(feed, progress)
        self._lead(lambda: run.begin_state(iteration))
        partial = run.partial_state(iteration)
        try:
            self._lead(lambda: (partial / STATE_FILE).write_text(json.dumps(facts, indent=2)))
            self._write_state(backend, partial)
            self._lead(lambda: self._write_weights(weights, average, iteration))
            self._lead(lambda: run.finish_state(iteration))
        finally:
            if self._world.leads:
                run.drop_partial(iteration)
        self._lead(lambda: run.point_to(iteration))
        self._lead(lambda: run.tidy(self._config.keep))

    def resume(self, backend: Backend, feed: Feed, iteration: int) -> Progress:
        """Take up the state behind ``iteration``; the weights are in the policy already.

        Raises:
            StateError: it is corrupt.
            FeedError: it belongs to other data.
        """
        folder = self.run.state(iteration)
        facts = _read_facts(folder)
        exact = not self._warn(facts)
        if self._optimizer_fits(facts):
            backend.load(folder)
        feed.resume(facts['feed'])
        own = folder / f'random_{self._world.rank}.pt'
        if exact:
            _restore_random_state(own)
        return Progress(**facts['progress'])

    def _write_state(self, backend: Backend, folder: Path) -> None:
        # DeepSpeed's processes wait for each other while they save, so none may go its own way.
        if self._config.backend is BackendKind.DEEPSPEED:
            with self._saving():
                backend.save(folder)
        else:
            self._together(lambda: backend.save(folder))
        self._together(lambda: save_random_state(folder / f'random_{self._world.rank}.pt'))

    def _write_weights(self, weights: Mapping[str, Tensor], average: Mapping[str, Tensor] | None,
                       iteration: int) -> None:
        self._save_weights(self.run.checkpoint(iteration), weights, iteration)
        if average is not None:
            self._save_weights(self.run.average(iteration), {**weights, **average}, iteration)

    def _save_weights(self, folder: Path, weights: Mapping[str, Tensor], iteration: int) -> None:
        save_checkpoint(folder, weights=weights_of(weights, EXPERT), vlm_weights=weights_of(weights, VLM) or None,
                        config=self._policy, contract=self._contract, iteration=iteration,
                        git_revision=git_revision())

    def _together(self, action: Callable[[], object]) -> None:
        """Run ``action`` here; if it fails anywhere, it fails everywhere."""
        problem: Exception | None = None
        try:
            with self._saving():
                action()
        except SaveError as error:
            problem = error
        if self._world.any_of([problem is not None])[0]:
            raise problem or SaveError('another process could not write its part of the checkpoint; see its message')

    def _lead(self, action: Callable[[], object]) -> None:
        """The leading process does it, the others hear whether it could."""
        self._together(action if self._world.leads else lambda: None)

    def _saving(self) -> '_Saving':
        return _Saving(self.run)

    def _facts(self, feed: Feed, progress: Progress) -> dict[str, Any]:
        return {'format': FORMAT, 'progress': asdict(progress), 'feed': feed.state(),
                'torch': torch.__version__, **_setting(self._config, self._world)}

    def _optimizer_fits(self, facts: Mapping[str, Any]) -> bool:
        """Whether saved optimizer state can be taken up; torch's does not depend on the processes."""
        names = ('backend', 'zero_stage', 'processes')
        same = {name: facts[name] == _setting(self._config, self._world)[name] for name in names}
        return same['backend'] and (self._config.backend is BackendKind.DDP or all(same.values()))

    def _warn(self, facts: Mapping[str, Any]) -> list[str]:
        """What differs from the run that was saved, said once."""
        now = _setting(self._config, self._world)
        differing = [f'{name} {facts[name]} -> {now[name]}' for name in now if facts[name] != now[name]]
        if differing and self._world.leads:
            log.warning('this run goes on under other conditions (%s): it will not repeat, bit for bit, what the '
                        'old ones would have given', ', '.join(differing))
            if not self._optimizer_fits(facts):
                log.warning('the optimizer state cannot be carried over; its moments start afresh')
        return differing


class _Saving:
    """Turns what a full or read-only disk causes into a :class:`SaveError`."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # torch reports a failed write as RuntimeError, safetensors as its own.
        if isinstance(error, SaveError) or not isinstance(error, Exception):
            return
        if isinstance(error, OSError | RuntimeError) or type(error).__name__ == 'SafetensorError':
            last = self._run.latest()
            kept = f'{self._run.checkpoint(last)} is kept' if last is not None else 'there is none before it'
            raise SaveError(f'the checkpoint could not be written: {error}; {kept}. Make room and start again with '
                            '--va-conti or --vla-conti') from error


def _setting(config: TrainConfig, world: World) -> dict[str, Any]:
    return {'backend': config.backend.value,
            'zero_stage': config.zero_stage if config.backend is BackendKind.DEEPSPEED else None,
            'processes': world.size, 'batch': config.batch, 'accumulation': config.accumulation,
            'draws': config.draws, 'seed': config.seed}


def _restore_random_state(path: Path) -> None:
    try:
        restore_random_state(path)
    except UNREADABLE as error:
        raise StateError(f'the random state in {path} cannot be taken up: '
                         f'{str(error) or type(error).__name__}') from error


def _read_facts(folder: Path) -> dict[str, Any]:
    path = folder / STATE_FILE
    try:
        facts = json.loads(path.read_text())
        if facts['format'] != FORMAT:
            raise StateError(f'{path} has format {facts["format"]!r}, expected {FORMAT!r}; go on with the '
                             'version of the suite that wrote it, or start from the weights alone with '
                             '--pretrained-ckpt')
        return dict(facts)
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise StateError(f'{path} cannot be read: {error}; start from the weights alone with --pretrained-ckpt, or '
                         f'point the file "latest" in {folder.parent} to an older checkpoint') from error
