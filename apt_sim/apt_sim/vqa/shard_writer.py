"""Writer of VQA shards: static scenes with their images and a conversation about each.

A shard is a folder with images and ``conversations.jsonl``, which has one line ``{"images": [...], "messages": [...]}``
per scene in the format of chat templates and TRL. Further keys annotate each image: ``marks`` has the positions of
objects as ``{name: [[across, down], ...]}`` in shares of the image's side, ``places`` their centres in the camera's
optical frame as ``{name: [x, y, z]}`` in metres. ``meant`` has the object of each question. The number of a shard
determines all of its bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apt_policy.core.atomic import atomic_folder
from apt_policy.core.contract import load_contract
from apt_sim.evaluation.rollout import LIGHT_AND_CAMERA_RANDOMIZATION, rollout_scene
from apt_sim.vqa.questions import QuestionAnswer, sample_questions
from apt_sim.vqa.static_scene import StaticSceneSampler, render_and_annotate
from apt_sim.world.cameras import CameraImage, CameraRig
from apt_sim.world.physics import Simulation
from apt_sim.world.scene import RENDERING_VERSION
from apt_training.episodes.codec import encode_jpeg

PROGRAM = 'apt-sim-questions 6'
"""Name and version in the data set; the version changes when the same configuration would give other shards."""
CONVERSATIONS = 'conversations.jsonl'
_JPEG_QUALITY = 90
# Fifth part of a scene's seed; the seeds of rollouts have four parts, so the scenes differ from all of theirs.
_STREAM = 7


@dataclass(frozen=True, kw_only=True)
class VqaConfig:
    """Configuration of a VQA data set apart from its number of shards."""

    contract: str
    """Path of the robot contract."""
    seed: int = 0
    """Seed of all scenes."""
    scenes: int = 50
    """Number of scenes in a shard."""
    questions: int = 6
    """Number of questions about a scene, without its description."""

    def facts(self) -> dict[str, Any]:
        """Return the configuration for JSON, with the robot's facts instead of a path."""
        return {'program': PROGRAM, 'pictures': RENDERING_VERSION,
                'contract': load_contract(self.contract).policy_facts(),
                'seed': self.seed, 'scenes': self.scenes, 'questions': self.questions}


def shard_folder(folder: Path, number: int) -> Path:
    """Return the folder of a shard."""
    return folder / f'sheet_{number:05d}'


class ShardWriter:
    """Writer of a data set's shards; it belongs to one process."""

    def __init__(self, settings: VqaConfig, folder: Path) -> None:
        """Build the robot and its cameras.

        Args:
            settings: configuration of the data set.
            folder: folder of the data set.

        Raises:
            ContractError, SceneError, KinematicsError: the contract cannot be read, or does not fit the robot.
            GraphicsError: OpenGL is not available.
        """
        self._settings, self._folder = settings, folder
        contract = load_contract(settings.contract)
        self._simulation = Simulation(contract, rollout_scene(contract, LIGHT_AND_CAMERA_RANDOMIZATION))
        self._sampler = StaticSceneSampler(contract, self._simulation)
        self._rig = CameraRig(self._simulation)

    def __call__(self, number: int) -> int:
        """Write one shard atomically.

        Returns:
            The number of its scenes.

        Raises:
            OSError: the disk is full.
        """
        with atomic_folder(shard_folder(self._folder, number), overwrite=True) as shard:
            shard.mkdir(parents=True)
            lines = [self._scene(number, row, shard) for row in range(self._settings.scenes)]
            (shard / CONVERSATIONS).write_text(''.join(f'{line}\n' for line in lines))
        return len(lines)

    def close(self) -> None:
        """Free the graphics context."""
        self._rig.close()

    def _scene(self, shard: int, row: int, folder: Path) -> str:
        entropy = np.random.SeedSequence((self._settings.seed, shard, row, 0, _STREAM))
        scene = self._sampler.sample(int(entropy.generate_state(1)[0]) % 2**31)
        images, annotations = render_and_annotate(self._simulation, self._rig, scene)
        pairs = sample_questions(annotations, np.random.default_rng(entropy), count=self._settings.questions)
        names = {camera: f'{row:03d}_{camera}.jpg' for camera in images}
        _save(images, names, folder)
        marks = [{name: [[round(share, 4) for share in point] for point in points]
                  for name, points in annotations.image_points[camera].items()} for camera in names]
        places = [{name: [round(metres, 4) for metres in point]
                   for name, point in annotations.camera_positions[camera].items()} for camera in names]
        return json.dumps({'images': list(names.values()), 'marks': marks, 'places': places,
                           'meant': [pair.subject or None for pair in pairs],
                           'messages': chat_messages(pairs, images=len(names))})


def chat_messages(pairs: tuple[QuestionAnswer, ...], *, images: int) -> list[dict[str, Any]]:
    """Return the chat messages of a scene, with its images before the first question."""
    messages: list[dict[str, Any]] = []
    for pair in pairs:
        shown = [{'type': 'image'}] * images if not messages else []
        messages += [{'role': 'user', 'content': [*shown, {'type': 'text', 'text': pair.question}]},
                     {'role': 'assistant', 'content': [{'type': 'text', 'text': pair.answer}]}]
    return messages


def _save(images: Mapping[str, CameraImage], names: Mapping[str, str], folder: Path) -> None:
    for camera, image in images.items():
        (folder / names[camera]).write_bytes(encode_jpeg(image.rgb, _JPEG_QUALITY).tobytes())
