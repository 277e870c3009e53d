"""One sheet of questions: some still scenes with their pictures, and a conversation about each.

A sheet is a folder: ``conversations.jsonl`` with a line ``{"images": [...], "messages": [...]}`` a scene, in the
format that chat templates take and TRL reads, and the pictures that it names. ``marks`` says beside it where things are
in each picture: ``{name: [[across, down], ...]}``, as shares of its side; ``places`` where their middles are in the
optical frame of its camera: ``{name: [x, y, z]}`` in metres; ``meant``, for each question, the thing that it is about.
The number of a sheet decides all of its bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apt_policy.core.atomic import atomic_folder
from apt_policy.core.contract import load_contract
from apt_sim.evaluation.trial import LIGHTS_AND_CAMERAS, trial_scene
from apt_sim.vqa.ask import Turn, ask
from apt_sim.vqa.still import StillDrawer, look
from apt_sim.world.cameras import CameraRig, Shot
from apt_sim.world.physics import Simulation
from apt_sim.world.scene import PICTURES
from apt_training.episodes.codec import encode_jpeg

PROGRAM = 'apt-sim-questions 6'
"""Changes when the same settings would give other sheets."""
CONVERSATIONS = 'conversations.jsonl'
_JPEG_QUALITY = 90
# Apart from the scenes of all trials, whose seeds have four parts.
_STREAM = 7


@dataclass(frozen=True, kw_only=True)
class QuestionSettings:
    """What decides the sheets, but for their number."""

    contract: str
    """Path."""
    seed: int = 0
    scenes: int = 50
    """Of a sheet."""
    questions: int = 6
    """About a scene, besides its description."""

    def facts(self) -> dict[str, Any]:
        """The same for JSON, with the robot instead of a path."""
        return {'program': PROGRAM, 'pictures': PICTURES, 'contract': load_contract(self.contract).policy_facts(),
                'seed': self.seed, 'scenes': self.scenes, 'questions': self.questions}


def sheet_folder(folder: Path, number: int) -> Path:
    """Where a sheet lies."""
    return folder / f'sheet_{number:05d}'


class SheetWriter:
    """Writes the sheets of one data set; belongs to one process."""

    def __init__(self, settings: QuestionSettings, folder: Path) -> None:
        """Build the robot and its cameras.

        Raises:
            ContractError, SceneError, GraphicsError, KinematicsError: see there.
        """
        self._settings, self._folder = settings, folder
        contract = load_contract(settings.contract)
        self._simulation = Simulation(contract, trial_scene(contract, LIGHTS_AND_CAMERAS))
        self._drawer = StillDrawer(contract, self._simulation)
        self._rig = CameraRig(self._simulation)

    def __call__(self, number: int) -> int:
        """Write one sheet, whole or not at all; how many scenes are in it.

        Raises:
            OSError: the disk is full.
        """
        with atomic_folder(sheet_folder(self._folder, number), overwrite=True) as sheet:
            sheet.mkdir(parents=True)
            lines = [self._scene(number, row, sheet) for row in range(self._settings.scenes)]
            (sheet / CONVERSATIONS).write_text(''.join(f'{line}\n' for line in lines))
        return len(lines)

    def close(self) -> None:
        """Give the graphics context back."""
        self._rig.close()

    def _scene(self, sheet: int, row: int, folder: Path) -> str:
        entropy = np.random.SeedSequence((self._settings.seed, sheet, row, 0, _STREAM))
        scene = self._drawer.draw(int(entropy.generate_state(1)[0]) % 2**31)
        shots, sight = look(self._simulation, self._rig, scene)
        turns = ask(sight, np.random.default_rng(entropy), count=self._settings.questions)
        names = {camera: f'{row:03d}_{camera}.jpg' for camera in shots}
        _save(shots, names, folder)
        marks = [{name: [[round(share, 4) for share in point] for point in points]
                  for name, points in sight.marked[camera].items()} for camera in names]
        places = [{name: [round(metres, 4) for metres in point] for name, point in sight.placed[camera].items()}
                  for camera in names]
        return json.dumps({'images': list(names.values()), 'marks': marks, 'places': places,
                           'meant': [turn.meant or None for turn in turns],
                           'messages': conversation(turns, pictures=len(names))})


def conversation(turns: tuple[Turn, ...], *, pictures: int) -> list[dict[str, Any]]:
    """Chat messages: the pictures before the first question."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        shown = [{'type': 'image'}] * pictures if not messages else []
        messages += [{'role': 'user', 'content': [*shown, {'type': 'text', 'text': turn.question}]},
                     {'role': 'assistant', 'content': [{'type': 'text', 'text': turn.answer}]}]
    return messages


def _save(shots: Mapping[str, Shot], names: Mapping[str, str], folder: Path) -> None:
    for camera, shot in shots.items():
        (folder / names[camera]).write_bytes(encode_jpeg(shot.rgb, _JPEG_QUALITY).tobytes())
