"""Fixtures that make small episodes of every storage."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from apt_policy.core.contract import RobotContract, load_contract
from apt_policy.core.geometry import make_pose
from apt_training.episodes.episode import CameraFrame, EpisodeFacts, Frame, ImageStorage, LabelSource
from apt_training.episodes.write import EpisodeWriter

CONFIG = Path(__file__).resolve().parents[2] / 'apt_bringup' / 'config'


@pytest.fixture(scope='session')
def aloha() -> RobotContract:
    """Return the shipped contract of the real robot."""
    return load_contract(CONFIG / 'aloha.yaml')


@pytest.fixture(scope='session')
def facts() -> EpisodeFacts:
    """Return facts of a small robot with two arms and two cameras at 10 Hz."""
    return EpisodeFacts(prompts=('pick the cube', 'take the cube'), rate_hz=10.0, arms=('left', 'right'),
                        cameras=('high', 'wrist'), label_source=LabelSource.MEASURED, contract=None,
                        source_hash='', converter_version='test')


@pytest.fixture(scope='session')
def make_frames() -> Callable[..., list[Frame]]:
    """Return a function that makes frames with smooth motion, and images of colour patches and a gradient."""
    def make(facts: EpisodeFacts, count: int = 12, *, height: int = 32, width: int = 48, seed: int = 0,
             desired: bool = False, mask: bool = False) -> list[Frame]:
        rng = np.random.default_rng(seed)
        arms = len(facts.arms)
        turn = Rotation.from_rotvec(rng.normal(0, 0.3, (arms, 3)))
        seen = np.ones((height, width), np.bool_)
        seen[:height // 8] = not mask
        frames = []
        for step in range(count):
            poses = make_pose((turn ** (step / count)).as_matrix(), rng.normal(0.3, 0.01, (arms, 3)) + 0.01 * step)
            views = {name: CameraFrame(
                rgb=colour_chart(height, width, step + 5 * place), mask=seen if mask else None,
                intrinsics=np.array([[50.0, 0, width / 2 + 0.3], [0, 51.0, height / 2 - 0.2], [0, 0, 1]]),
                world_from_camera=make_pose(Rotation.from_euler('x', 2 + 0.1 * place).as_matrix(),
                                            [0.01 * step * place, 0.1, 0.9]))
                for place, name in enumerate(facts.cameras)}
            frames.append(Frame(
                stamp_s=100.0 + step / facts.rate_hz, world_from_ee=poses, gripper=rng.uniform(0, 1, arms),
                desired_world_from_ee=poses + make_pose(np.zeros((3, 3)), [0, 0, 0.002]) * [[0], [0], [1], [0]]
                if desired else None, desired_gripper=np.full(arms, step / count) if desired else None, views=views))
        return frames
    return make


@pytest.fixture(scope='session')
def write_episode(facts: EpisodeFacts, make_frames: Callable[..., list[Frame]]) -> Callable[..., list[Frame]]:
    """Return a function that writes a small episode and returns its frames; arguments of make_frames change it."""
    def write(path: Path, *, storage: ImageStorage = ImageStorage.JPEG, frames: Sequence[Frame] | None = None,
              changes: dict[str, Any] | None = None, **shape: Any) -> list[Frame]:
        described = replace(facts, **(changes or {}))
        made = list(make_frames(described, **shape) if frames is None else frames)
        with EpisodeWriter(path, described, storage=storage) as writer:
            for frame in made:
                writer.append_frame(frame)
        return made
    return write


def colour_chart(height: int, width: int, shift: int) -> np.ndarray:
    """Return (H, W, 3) with red, green and blue thirds, brighter downwards, rolled by ``shift`` rows."""
    chart = np.full((height, width, 3), 20, np.uint8)
    for channel in range(3):
        chart[:, channel * width // 3:(channel + 1) * width // 3, channel] = np.linspace(
            140, 230, height).astype(np.uint8)[:, None]
    return np.roll(chart, shift, axis=0)
