"""Random scenes and experts for the tests of the model; golden vectors; the tiny VLM."""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from apt_policy.core.contract import RobotContract, load_contract
from apt_policy.model.batch import Images, RobotState, VlFeatures
from apt_policy.model.config import TINY_VLM, ExpertConfig, TrainingStage, VlmConfig, VlmMode
from apt_policy.model.expert import Expert
from apt_policy.model.vlm.bridge import VlmBridge, build_bridge

CPU = torch.device('cpu')
CONFIG = Path(__file__).resolve().parents[3] / 'apt_bringup' / 'config'


@pytest.fixture(scope='session', autouse=True)
def one_thread():
    """The models are tiny: on a shared machine, threads that wait for each other cost 20 times the work."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_random_numbers_every_time():
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def vectors() -> ModuleType:
    """The module that reads golden vectors and holds experts against them."""
    return _load('golden_vectors')


@pytest.fixture(scope='session')
def uncached() -> ModuleType:
    """The expert without a cache, written from the formulas."""
    return _load('uncached_expert')


def _load(name: str) -> ModuleType:
    """Import a module of this folder, which is in no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f'{name}.py'))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look up the module that they are defined in.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def random_poses() -> Callable[..., Tensor]:
    """(*shape, 4, 4) rigid poses within about a metre, from a seed."""
    def make(*shape: int, seed: int = 0) -> Tensor:
        random = np.random.default_rng(seed)
        poses = np.tile(np.eye(4), (*shape, 1, 1))
        count = int(np.prod(shape))
        poses[..., :3, :3] = Rotation.random(count, rng=random).as_matrix().reshape(*shape, 3, 3)
        poses[..., :3, 3] = random.normal(scale=0.4, size=(*shape, 3))
        return torch.from_numpy(poses).float()
    return make


@pytest.fixture
def random_states(random_poses: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """(*shape, 17) states."""
    def make(*shape: int, seed: int = 0) -> Tensor:
        opening = torch.from_numpy(np.random.default_rng(seed + 1).uniform(size=(*shape, 1))).float()
        return torch.cat([random_poses(*shape, seed=seed).flatten(-2), opening], dim=-1)
    return make


@dataclass(frozen=True)
class RandomScene:
    """Input of an expert."""

    features: VlFeatures
    robot: RobotState


@pytest.fixture
def random_scene(random_poses: Callable[..., Tensor],
                 random_states: Callable[..., Tensor]) -> Callable[..., RandomScene]:
    """Two text tokens, the cameras' tokens, then text; everything valid."""
    def make(config: ExpertConfig, *, batch: int = 2, cameras: int = 2, per_camera: int = 4, text: int = 5,
             arms: int = 2, history: int = 1, seed: int = 0) -> RandomScene:
        random = torch.Generator().manual_seed(seed)
        length = 2 + cameras * per_camera + text
        is_vision = torch.zeros(batch, length, dtype=torch.bool)
        is_vision[:, 2:2 + cameras * per_camera] = True
        ee = random_poses(batch, arms, seed=seed + 1)
        past = random_states(batch, history, arms, seed=seed + 2)
        past[:, -1, :, :16] = ee.flatten(2)
        cameras_at = random_poses(batch, cameras, seed=seed + 3)
        features = VlFeatures(
            inputs_embeds=torch.randn(batch, length, config.vlm_width, generator=random),
            hidden_states=torch.randn(config.taps, batch, length, config.vlm_width, generator=random),
            attention_mask=torch.ones(batch, length, dtype=torch.bool), is_vision=is_vision,
            norm_xy=torch.randn(batch, cameras, per_camera, 2, generator=random),
            camera_valid=torch.ones(batch, cameras, dtype=torch.bool))
        robot = RobotState(
            world_from_camera=cameras_at, world_from_ee=ee, history=past,
            world_from_reference=cameras_at[:, torch.arange(arms) % cameras],
            valid_arms=torch.ones(batch, arms, dtype=torch.bool))
        return RandomScene(features, robot)
    return make


@pytest.fixture
def random_expert() -> Callable[..., Expert]:
    """Random numbers in every parameter, so that no zero-initialised layer hides a mistake."""
    def make(config: ExpertConfig, seed: int = 0) -> Expert:
        random = torch.Generator().manual_seed(seed)
        expert = Expert(config)
        with torch.no_grad():
            for parameter in expert.parameters():
                fan_in = parameter.shape[-1] if parameter.ndim > 1 else 4
                parameter.copy_(torch.randn(parameter.shape, generator=random) * fan_in ** -0.5)
        return expert.eval()
    return make


def small(stage: TrainingStage = TrainingStage.VLA, **sizes: int) -> ExpertConfig:
    return ExpertConfig(**{'stage': stage, 'width': 32, 'heads': 2, 'vlm_width': 24, 'taps': 4, **sizes})


@pytest.fixture
def small_config() -> Callable[..., ExpertConfig]:
    """An expert of width 32 with 2 heads and 4 taps, unless told otherwise."""
    return small


@pytest.fixture
def random_images() -> Callable[..., Images]:
    """Images of B prompts from C cameras, everything valid."""
    def make(prompts: tuple[str, ...], *, cameras: int = 2, side: int = 64, seed: int = 0) -> Images:
        random = torch.Generator().manual_seed(seed)
        shape = (len(prompts), cameras)
        return Images(rgb=torch.rand(*shape, 3, side, side, generator=random),
                      mask=torch.ones(*shape, side, side, dtype=torch.bool),
                      norm_xy=torch.randn(*shape, 2, side, side, generator=random), prompts=prompts)
    return make


@pytest.fixture
def tiny_bridge() -> Callable[..., VlmBridge]:
    """The tiny VLM in float32, unless told otherwise."""
    def make(mode: VlmMode = VlmMode.FROZEN, *, dtype: str = 'float32', **fields: object) -> VlmBridge:
        return build_bridge(VlmConfig(name=TINY_VLM, mode=mode, dtype=dtype, **fields), CPU)
    return make


@pytest.fixture(scope='session')
def aloha() -> RobotContract:
    """The shipped contract of the real robot."""
    return load_contract(CONFIG / 'aloha.yaml')
