"""Inputs of an evaluation: checkpoint, robot and episodes, opened and checked against each other.

Mistakes of the user are found here, before anything is computed.
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
from apt_training.data.dataset_spec import DatasetSpec
from apt_training.data.sample import Window
from apt_training.episodes.episode import EpisodeError

_LISTED = 10
"""Number of episodes that an error message lists."""


class EvaluationError(UserError, ValueError):
    """Checkpoint, contract and episodes that do not fit each other; the message names the difference."""


@dataclass(frozen=True, kw_only=True)
class EvaluatedRobot:
    """Facts of the robot that an evaluation needs."""

    name: str
    """Source of the facts, for messages."""
    window: Window
    spec: DatasetSpec
    step_s: float
    """Time between two states of the horizon [s]."""


def robot_from_checkpoint(checkpoint: Checkpoint, contract: Path | None) -> EvaluatedRobot:
    """Return the facts of the robot from the checkpoint, or from a contract file if the checkpoint records none.

    Args:
        checkpoint: checkpoint to evaluate.
        contract: contract file, which a checkpoint's own facts must match; None: use the checkpoint's facts.

    Raises:
        EvaluationError: there is neither, or a fact is missing.
        CheckpointError: the checkpoint was trained for another robot.
        ContractError: the file is not a valid contract.
    """
    if contract is not None:
        facts: Mapping[str, Any] = load_contract(contract).policy_facts()
        checkpoint.require_contract(facts)
        return _robot(str(contract), facts)
    if not checkpoint.contract:
        raise EvaluationError(f'{checkpoint.source} does not record its robot; give the contract, for example '
                              '--contract config/aloha.yaml')
    return _robot(checkpoint.source, checkpoint.contract)


def open_episodes(files: Sequence[Path], robot: EvaluatedRobot) -> EpisodeDataset:
    """Open the held-out episodes, and check everything of them except their images.

    Raises:
        EvaluationError: files are damaged or do not fit the robot; the message names them.
    """
    dataset = EpisodeDataset(files, robot.spec, window=robot.window)
    problems = []
    for index in range(len(dataset)):
        try:
            dataset.check_episode(index)
        except EpisodeError as error:
            problems.append(str(error))
    if problems:
        more = f'\n  and {len(problems) - _LISTED} more' if len(problems) > _LISTED else ''
        raise EvaluationError(f'{len(problems)} of {len(files)} episodes cannot be evaluated with {robot.name}:\n  '
                              + '\n  '.join(problems[:_LISTED]) + more
                              + '\nRemove them, or give the checkpoint of their robot')
    return dataset


def load_policy(checkpoint: Checkpoint, *, device: torch.device, dtype: str, vlm: str = '') -> Policy:
    """Load the policy in evaluation mode.

    Args:
        checkpoint: checkpoint as read.
        device: device to run on.
        dtype: data type of the weights, ``float32`` or ``bfloat16``.
        vlm: hub name or folder of the VLM, in place of the checkpoint's.

    Raises:
        CheckpointError: the weights do not fit.
        VlmError: the VLM cannot be loaded.
    """
    trained_vlm = checkpoint.vlm or VlmConfig()
    config = replace(trained_vlm, name=vlm or trained_vlm.name, dtype=dtype)
    policy = build_policy(checkpoint, device=device, vlm=config)
    policy.expert.to(getattr(torch, dtype))
    return policy.eval()


def _robot(name: str, facts: Mapping[str, Any]) -> EvaluatedRobot:
    try:
        arms = tuple(facts['arms'])
        return EvaluatedRobot(
            name=name, step_s=float(facts['step_s']),
            window=Window(image_size=facts['image_size'], horizon=facts['horizon'], history=facts['history']),
            spec=DatasetSpec(
                name='held-out', cameras=tuple(facts['cameras']), arms=arms, step_s=float(facts['step_s']),
                reference_cameras=tuple(tuple(facts[f'arms.{arm}.reference_cameras']) for arm in arms)))
    except KeyError as error:
        raise EvaluationError(f'the contract in {name} lacks {error}; give a complete one, for example '
                              '--contract config/aloha.yaml') from error
