"""Small policies with random weights, as checkpoints, and episodes that they were made for."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from apt_policy.model.checkpoint import read_checkpoint
from apt_policy.model.config import TINY_VLM, ExpertConfig, PolicyConfig, TrainingStage, VlmConfig
from apt_policy.model.expert import Expert
from apt_policy.model.policy import Policy
from apt_policy.model.restore import save_policy
from apt_policy.model.vlm.bridge import build_bridge
from apt_training.evaluate.inputs import open_episodes, robot_from_checkpoint

FACTS: Mapping[str, Any] = {
    'arms': ['left', 'right'], 'cameras': ['high', 'wrist'], 'image_size': 64, 'horizon': 6, 'history': 1,
    'step_s': 0.1, 'arms.left.reference_cameras': ['high'], 'arms.right.reference_cameras': ['wrist', 'high']}


@pytest.fixture(scope='session', autouse=True)
def one_thread() -> None:
    """The models are tiny: on a shared machine, threads that wait for each other cost 20 times the work."""
    torch.set_num_threads(1)


@pytest.fixture(scope='session')
def make_policy() -> Callable[..., Policy]:
    """Random numbers in every weight, so that whatever may depend on something does."""
    def make(stage: TrainingStage = TrainingStage.VLA) -> Policy:
        bridge = build_bridge(VlmConfig(name=TINY_VLM, dtype='float32'), torch.device('cpu'))
        expert = Expert(ExpertConfig(stage=stage, width=32, heads=2, vlm_width=bridge.width, taps=bridge.taps))
        random = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in expert.parameters():
                fan_in = parameter.shape[-1] if parameter.ndim > 1 else 4
                parameter.copy_(torch.randn(parameter.shape, generator=random) * fan_in ** -0.5)
        return Policy(PolicyConfig(expert=expert.config, vlm=bridge.config), bridge, expert)
    return make


@pytest.fixture(scope='session')
def checkpoints(make_policy: Callable[..., Policy], tmp_path_factory: pytest.TempPathFactory
                ) -> Mapping[TrainingStage, Path]:
    """Checkpoints of both stages."""
    folder = tmp_path_factory.mktemp('checkpoints')
    for stage in TrainingStage:
        save_policy(folder / stage.value, make_policy(stage), contract=FACTS, iteration=700, git_revision='')
    return {stage: folder / stage.value for stage in TrainingStage}


@pytest.fixture(scope='session')
def held_out(write_episode: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three episodes with different instructions."""
    folder = tmp_path_factory.mktemp('held_out')
    for index, prompt in enumerate(('pick the cube', 'open the drawer', 'go home')):
        write_episode(folder / f'episode_{index}.h5', count=10 + index, seed=index, changes={'prompts': (prompt,)})
    return folder


@pytest.fixture
def dataset_of(checkpoints: Mapping[TrainingStage, Path]) -> Callable[[Sequence[Path]], Any]:
    """Files as the checkpoints' robot sees them."""
    robot = robot_from_checkpoint(read_checkpoint(checkpoints[TrainingStage.VLA]), None)
    return lambda files: open_episodes(files, robot)
