"""What ``apt-eval`` is pointed at, opened and checked against each other: checkpoint, robot, episodes.

Everything that a user can get wrong is found here, before anything is computed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from apt_policy.core.contract import load_contract
from apt_policy.core.errors import UserError
from apt_policy.model.checkpoint import Checkpoint
from apt_policy.model.config import VlmConfig
from apt_policy.model.policy import Policy
from apt_policy.model.restore import build_policy
from apt_training.data.dataset import EpisodeDataset
from apt_training.data.declare import Declaration
from apt_training.data.sample import Window
from apt_training.episodes.episode import EpisodeError

_NAMED = 10


class EvaluationError(UserError, ValueError):
    """Checkpoint, contract and episodes do not go together; the message says what differs."""


@dataclass(frozen=True, kw_only=True)
class Robot:
    """Of the robot, what evaluation has to know."""

    name: str
    window: Window
    declaration: Declaration
    step_s: float


def robot_of(checkpoint: Checkpoint, contract: Path | None) -> Robot:
    """From the checkpoint's own facts, or for a checkpoint without any from a contract file.

    Raises:
        EvaluationError: neither is there, or a fact is missing.
        CheckpointError: both are there and differ.
        ContractError: the file is no contract.
    """
    if contract is not None:
        facts: Mapping[str, Any] = load_contract(contract).policy_facts()
        checkpoint.require_contract(facts)
        return _robot(str(contract), facts)
    if not checkpoint.contract:
        raise EvaluationError(f'{checkpoint.source} does not say for which robot it was trained; name its contract: '
                              '--contract config/aloha.yaml')
    return _robot(checkpoint.source, checkpoint.contract)


def open_episodes(files: Sequence[Path], robot: Robot) -> EpisodeDataset:
    """The held-out episodes, every one checked, pixels excepted.

    Raises:
        EvaluationError: naming the files that are bad or do not fit the robot.
    """
    dataset = EpisodeDataset(files, robot.declaration, window=robot.window)
    problems = []
    for index in range(len(dataset)):
        try:
            dataset.check(index)
        except EpisodeError as error:
            problems.append(str(error))
    if problems:
        more = f'\n  and {len(problems) - _NAMED} more' if len(problems) > _NAMED else ''
        raise EvaluationError(f'{len(problems)} of {len(files)} episodes cannot be evaluated with {robot.name}:\n  '
                              + '\n  '.join(problems[:_NAMED]) + more
                              + '\nLeave them out, or give the checkpoint of their robot')
    return dataset


def load_policy(checkpoint: Checkpoint, *, device: torch.device, dtype: str, vlm: str = '') -> Policy:
    """The policy in evaluation mode.

    Args:
        checkpoint: as read.
        device: where it will run.
        dtype: ``float32`` or ``bfloat16``.
        vlm: hub name or folder of the VLM, in place of the checkpoint's.

    Raises:
        CheckpointError: weights do not fit.
        VlmError: the VLM cannot be loaded.
    """
    trained_over = checkpoint.vlm or VlmConfig()
    config = replace(trained_over, name=vlm or trained_over.name, dtype=dtype)
    policy = build_policy(checkpoint, device=device, vlm=config)
    policy.expert.to(getattr(torch, dtype))
    return policy.eval()


def _robot(name: str, facts: Mapping[str, Any]) -> Robot:
    try:
        arms = tuple(facts['arms'])
        return Robot(
            name=name, step_s=float(facts['step_s']),
            window=Window(image_size=facts['image_size'], horizon=facts['horizon'], history=facts['history']),
            declaration=Declaration(
                name='held-out', cameras=tuple(facts['cameras']), arms=arms, step_s=float(facts['step_s']),
                reference_cameras=tuple(tuple(facts[f'arms.{arm}.reference_cameras']) for arm in arms)))
    except KeyError as error:
        raise EvaluationError(f'the contract in {name} lacks {error}; name a whole one: --contract '
                              'config/aloha.yaml') from error
