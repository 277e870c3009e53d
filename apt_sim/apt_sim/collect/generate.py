"""One demonstration of a split as an episode file, and on request as a bag too.

Steps physics directly and takes pictures only at the contract's step. An episode's number decides all of its
bytes; scenes in which the demonstrator fails are passed over and counted. Files that are there stay as they are.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apt_policy.core.contract import load_contract
from apt_policy.core.errors import UserError
from apt_policy.core.sample import Target
from apt_sim.collect.bags import Moment, write_bag
from apt_sim.collect.dataset import bag_folder, episode_file, is_whole
from apt_sim.collect.disturbance import Disturbance
from apt_sim.collect.stumble import Stumble, draw_stumble, stumble, stumbles
from apt_sim.evaluation.splits import Split, SplitError, wordings
from apt_sim.evaluation.trial import LIGHTS_AND_CAMERAS, Trial, TrialDrawer, TrialPlan, trial_scene
from apt_sim.tasks.demonstrator import Demonstrator
from apt_sim.tasks.episode import LONGEST_S
from apt_sim.tasks.language import phrase
from apt_sim.tasks.stage import Stage
from apt_sim.tasks.success import done
from apt_sim.tasks.task import Situation
from apt_sim.world.cameras import CameraRig, Shot, intrinsics
from apt_sim.world.physics import PHYSICS, Simulation
from apt_sim.world.scene import LIGHTS, PICTURES
from apt_training.episodes.episode import CameraFrame, EpisodeFacts, Frame, LabelSource
from apt_training.episodes.write import EpisodeWriter

PROGRAM = 'apt-sim-data 5'
"""Stands in every file; changes when the same settings would give other episodes."""
_MOTION, _DISTURBANCE, _STUMBLE, _FATE = 4, 5, 6, 7
_TAIL_S = 0.5
_MOST_FAILURES = 20
_JPEG_QUALITY = 90
_LARGEST_DISTURBANCE = 0.05


class GenerationError(UserError, RuntimeError):
    """An episode that cannot be made; the message says why."""


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """What decides the episodes of a data set, but for their number."""

    contract: str
    """Path."""
    plan: TrialPlan
    disturbance: float = 0.0
    """Standard deviation of what pushes the demonstrator off its path [m]."""
    stumble: float = 0.0
    """Share of the episodes that begin with the hand beside the thing, closed on nothing or about to."""
    vary_cameras: bool = True
    """Whether cameras are a little elsewhere in every episode; the file says where."""

    def __post_init__(self) -> None:
        if self.plan.split is Split.COMPOSED:
            raise SplitError('composed has two instructions in a scene, and an episode has one; '
                             'generate another split')
        if not 0.0 <= self.disturbance <= _LARGEST_DISTURBANCE:
            raise ValueError(f'disturbance is {self.disturbance} m; expected 0 .. {_LARGEST_DISTURBANCE}')
        if not 0.0 <= self.stumble <= 1.0:
            raise ValueError(f'stumble is {self.stumble}; expected a share, 0 .. 1')

    def facts(self) -> dict[str, Any]:
        """The same for JSON, with the robot instead of a path."""
        plan = self.plan
        return {'program': PROGRAM, 'physics': PHYSICS, 'pictures': PICTURES,
                'contract': load_contract(self.contract).policy_facts(), 'split': plan.split.value,
                'skills': [skill.value for skill in plan.skills], 'seed': plan.seed, 'disturbance': self.disturbance,
                'stumble': self.stumble, 'vary_cameras': self.vary_cameras}


@dataclass(frozen=True, kw_only=True)
class Made:
    """An episode that was written."""

    number: int
    skill: str
    instruction: str
    duration_s: float
    """Simulated time."""
    frames: int
    size: int
    """Of the file [B]."""
    failures: int
    """Demonstrations that failed before one succeeded."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Take:
    """One demonstration, whatever becomes of it."""

    frames: Sequence[Frame]
    moments: Sequence[Moment]
    """Every control period of the frames, where they were asked for."""
    end: Situation


class Generator:
    """Writes the episodes of one data set; belongs to one process."""

    def __init__(self, settings: GenerationSettings, folder: Path, *, bags: int = 0) -> None:
        """Build the robot and its cameras.

        Args:
            bags: so many of the first episodes become bags too; changes no byte of the episode files.

        Raises:
            ContractError, SceneError, GraphicsError: see there.
        """
        self._settings, self._folder, self._bags = settings, folder, bags
        self._contract = load_contract(settings.contract)
        variation = LIGHTS_AND_CAMERAS if settings.vary_cameras else LIGHTS
        self._stage = Stage(Simulation(self._contract, trial_scene(self._contract, variation)))
        self._drawer = TrialDrawer(self._contract, self._stage.reset)
        self._rig = CameraRig(self._stage.simulation)
        self._hash = hashlib.sha256(json.dumps(settings.facts(), sort_keys=True).encode()).hexdigest()

    def __call__(self, number: int) -> Made:
        """Write what is missing of one episode.

        Raises:
            GenerationError: the demonstrator fails again and again.
            NoTaskError: no scene allows any of the skills.
            OSError, BagError: the disk is full.
        """
        attempt, failures, fate = 0, 0, self.fate(number)
        while failures < _MOST_FAILURES:
            trial, scene, attempt = self._drawer.begin(self._settings.plan, number, first_attempt=attempt)
            take = self._demonstrate(trial, scene, fate)
            if take is not None:
                return self._write(trial, take, failures)
            failures, attempt = failures + 1, attempt + 1
        raise GenerationError(f'episode {number}: the demonstrator failed in {failures} scenes in a row, last in that '
                              f'of seed {trial.seed} with "{trial.parts[-1].instruction}"; check the contract')

    def fate(self, number: int) -> Stumble | None:
        """Whether and how an episode begins with a stumble, if its task has one."""
        # Of the episode and not of the attempt: stumbles fail more often, and fewer would come of them.
        return draw_stumble(self._settings.stumble,
                            np.random.default_rng((self._settings.plan.scene_seed(number), _FATE)))

    def close(self) -> None:
        """Give the graphics context back."""
        self._rig.close()

    def _demonstrate(self, trial: Trial, scene: Situation, fate: Stumble | None) -> _Take | None:
        """The trial's demonstration; None if it failed."""
        task = trial.parts[0].task
        begin = self._begin(trial, scene, fate)
        if begin is None:
            return None
        demonstrator = Demonstrator(self._contract, task, begin, random=np.random.default_rng((trial.seed, _MOTION)))
        disturbance = Disturbance(
            self._settings.disturbance, 1.0 / self._contract.control_rate_hz, tuple(begin.arms.values()),
            np.random.default_rng((trial.seed, _DISTURBANCE)))
        take = self._record(demonstrator, disturbance, begin, closely=trial.number < self._bags)
        return take if demonstrator.done and done(task, scene, take.end) else None

    def _begin(self, trial: Trial, scene: Situation, fate: Stumble | None) -> Situation | None:
        """Where the recording begins; None if a stumble went wrong."""
        task = trial.parts[0].task
        if fate is None or not stumbles(task.skill):
            return scene
        return stumble(self._contract, task, scene, fate, self._stage.follow,
                       np.random.default_rng((trial.seed, _STUMBLE)))

    def _record(self, demonstrator: Demonstrator, disturbance: Disturbance, scene: Situation, *,
                closely: bool) -> _Take:
        """``closely``: every control period too."""
        frames: list[Frame] = []
        moments: list[Moment] = []
        whole = 0
        now, start_ns = scene, scene.stamp_ns
        shots, seen = self._look(), scene
        quiet_since_ns = start_ns
        while now.stamp_ns - quiet_since_ns < _TAIL_S * 1e9 and now.stamp_ns - start_ns < LONGEST_S * 1e9:
            if not demonstrator.done:
                quiet_since_ns = now.stamp_ns
            target = demonstrator.step(now)
            if closely:
                moments.append(self._moment(now, target, shots if now is seen else {}))
            now = self._stage.follow(disturbance.apply(target))
            # What is commanded at the end of a step is where its arms shall be when the next one begins.
            if now.stamp_ns - seen.stamp_ns >= self._contract.step_ns:
                frames.append(_frame(seen, self._views(shots), target, start_ns))
                whole = len(moments)
                shots, seen = self._look(), now
        return _Take(frames=frames, moments=moments[:whole], end=now)

    def _look(self) -> dict[str, Shot]:
        return {name: self._rig.shoot(name) for name in self._contract.cameras}

    def _views(self, shots: Mapping[str, Shot]) -> dict[str, CameraFrame]:
        return {name: CameraFrame(rgb=shot.rgb, mask=None, intrinsics=intrinsics(self._stage.simulation, name),
                                  world_from_camera=shot.world_from_camera) for name, shot in shots.items()}

    def _moment(self, now: Situation, target: Target, shots: Mapping[str, Shot]) -> Moment:
        readings = {name: self._stage.simulation.readings(name) for name in self._contract.arms}
        return Moment(stamp_ns=now.stamp_ns, readings=readings, target=target, shots=shots)

    def _write(self, trial: Trial, take: _Take, failures: int) -> Made:
        file, bag = episode_file(self._folder, trial.number), bag_folder(self._folder, trial.number)
        if not file.exists():
            with EpisodeWriter(file, self._facts_of(trial), jpeg_quality=_JPEG_QUALITY) as writer:
                for frame in take.frames:
                    writer.add(frame)
        if trial.number < self._bags and not is_whole(bag):
            write_bag(bag, self._stage.simulation, take.moments, instruction=trial.parts[0].instruction,
                      notes={'program': PROGRAM, 'scene_seed': str(trial.seed)})
        return Made(number=trial.number, skill=trial.parts[0].task.skill.value,
                    instruction=trial.parts[0].instruction, duration_s=len(take.frames) * self._contract.step_s,
                    frames=len(take.frames), size=file.stat().st_size, failures=failures)

    def _facts_of(self, trial: Trial) -> EpisodeFacts:
        contract, task = self._contract, trial.parts[0].task
        return EpisodeFacts(
            prompts=tuple(phrase(task, number) for number in wordings(trial.split, task)),
            rate_hz=1.0 / contract.step_s, arms=tuple(contract.arms), cameras=tuple(contract.cameras),
            label_source=LabelSource.TARGETS, contract=contract.policy_facts(), source_hash=self._hash,
            converter_version=PROGRAM)


def _frame(seen: Situation, views: Mapping[str, CameraFrame], target: Target, start_ns: int) -> Frame:
    arms = seen.arms.values()
    return Frame(
        stamp_s=(seen.stamp_ns - start_ns) / 1e9, views=views,
        world_from_ee=np.stack([arm.world_from_ee for arm in arms]), gripper=np.array([arm.gripper for arm in arms]),
        desired_world_from_ee=target.world_from_ee, desired_gripper=target.gripper)
