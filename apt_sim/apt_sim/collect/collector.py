"""Collection of demonstrations: one episode file per number, and on request a bag too.

The collector steps the physics directly and renders only at the contract's step. An episode's number determines all of
its bytes; scenes in which the scripted expert fails are skipped and counted. Existing files are kept.
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
from apt_sim.collect.bags import ControlTick, write_bag
from apt_sim.collect.dataset import bag_folder, episode_file, is_complete_bag
from apt_sim.collect.perturbations import (
    ActionNoise,
    RecoveryStart,
    has_recovery,
    move_to_recovery_start,
    sample_recovery_start,
)
from apt_sim.evaluation.rollout import (
    LIGHT_AND_CAMERA_RANDOMIZATION,
    Rollout,
    RolloutPlan,
    RolloutSampler,
    rollout_scene,
)
from apt_sim.evaluation.splits import InstructionSplit, SplitError, split_wordings
from apt_sim.tasks.episode import LONGEST_S
from apt_sim.tasks.language import format_instruction
from apt_sim.tasks.scripted_expert import ScriptedExpert
from apt_sim.tasks.success import is_task_done
from apt_sim.tasks.task import GroundTruth
from apt_sim.tasks.task_scene import TaskScene
from apt_sim.world.cameras import CameraImage, CameraRig, intrinsics
from apt_sim.world.physics import PHYSICS_VERSION, Simulation
from apt_sim.world.scene import LIGHT_RANDOMIZATION, RENDERING_VERSION
from apt_training.episodes.episode import CameraFrame, EpisodeFacts, Frame, LabelSource
from apt_training.episodes.write import EpisodeWriter

PROGRAM = 'apt-sim-data 5'
"""Name and version in every file; the version changes when the same configuration would give other episodes."""
# Random streams of a scene's seed; those below 4 belong to the layout, the objects, their appearance and the task.
_MOTION_STREAM, _NOISE_STREAM, _RECOVERY_STREAM, _RECOVERY_START_STREAM = 4, 5, 6, 7
# Time at rest at the end of an episode [s].
_TAIL_S = 0.5
_MAX_FAILURES = 20
_JPEG_QUALITY = 90
# Limit of the action noise's standard deviation [m].
_MAX_ACTION_NOISE = 0.05


class CollectionError(UserError, RuntimeError):
    """Episode that cannot be collected; the message names the reason."""


@dataclass(frozen=True, kw_only=True)
class CollectionConfig:
    """Configuration that, with an episode's number, determines the episode."""

    contract: str
    """Path of the robot contract."""
    plan: RolloutPlan
    """Split, skills and seed."""
    action_noise: float = 0.0
    """Standard deviation of the noise on the executed positions [m]."""
    recovery_share: float = 0.0
    """Share of recovery demonstrations, which begin with the hand beside the object, 0..1."""
    vary_cameras: bool = True
    """Randomise camera poses in every episode; the file records them."""

    def __post_init__(self) -> None:
        if self.plan.split is InstructionSplit.COMPOSED:
            raise SplitError('split is composed, whose scenes have two instructions, but an episode has one; '
                             'collect another split')
        if not 0.0 <= self.action_noise <= _MAX_ACTION_NOISE:
            raise ValueError(f'action_noise is {self.action_noise} m; expected 0 .. {_MAX_ACTION_NOISE}')
        if not 0.0 <= self.recovery_share <= 1.0:
            raise ValueError(f'recovery_share is {self.recovery_share}; expected a share, 0 .. 1')

    def facts(self) -> dict[str, Any]:
        """Return the configuration for JSON, with the robot's facts instead of a path."""
        plan = self.plan
        return {'program': PROGRAM, 'physics': PHYSICS_VERSION, 'pictures': RENDERING_VERSION,
                'contract': load_contract(self.contract).policy_facts(), 'split': plan.split.value,
                'skills': [skill.value for skill in plan.skills], 'seed': plan.seed, 'disturbance': self.action_noise,
                'stumble': self.recovery_share, 'vary_cameras': self.vary_cameras}


@dataclass(frozen=True, kw_only=True)
class CollectedEpisode:
    """Summary of an episode that was written."""

    number: int
    skill: str
    instruction: str
    duration_s: float
    """Duration in simulated time [s]."""
    frames: int
    """Number of frames."""
    size: int
    """Size of the file [B]."""
    failures: int
    """Number of failed demonstrations before the successful one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Demonstration:
    """One recorded demonstration, successful or not."""

    frames: Sequence[Frame]
    ticks: Sequence[ControlTick]
    """Control periods of the frames; empty where no bag is written."""
    end: GroundTruth


class EpisodeCollector:
    """Collector of the episodes of one data set; it belongs to one process."""

    def __init__(self, settings: CollectionConfig, folder: Path, *, bags: int = 0) -> None:
        """Build the robot and its cameras.

        Args:
            settings: what to collect.
            folder: folder of the data set.
            bags: number of first episodes that are written as bags too; episode files do not depend on it.

        Raises:
            ContractError, SceneError: the contract cannot be read, or does not fit the simulated robot.
            GraphicsError: OpenGL is not available.
        """
        self._settings, self._folder, self._bags = settings, folder, bags
        self._contract = load_contract(settings.contract)
        variation = LIGHT_AND_CAMERA_RANDOMIZATION if settings.vary_cameras else LIGHT_RANDOMIZATION
        self._task_scene = TaskScene(Simulation(self._contract, rollout_scene(self._contract, variation)))
        self._sampler = RolloutSampler(self._contract, self._task_scene.reset)
        self._rig = CameraRig(self._task_scene.simulation)
        self._hash = hashlib.sha256(json.dumps(settings.facts(), sort_keys=True).encode()).hexdigest()

    def __call__(self, number: int) -> CollectedEpisode:
        """Write the missing files of one episode.

        Raises:
            CollectionError: the scripted expert fails in 20 scenes in a row.
            NoTaskError: no scene allows any of the skills.
            OSError, BagError: the disk is full.
        """
        attempt, failures, recovery_start = 0, 0, self.recovery_start(number)
        while failures < _MAX_FAILURES:
            rollout, scene, attempt = self._sampler.sample(self._settings.plan, number, first_attempt=attempt)
            demonstration = self._demonstrate(rollout, scene, recovery_start)
            if demonstration is not None:
                return self._write(rollout, demonstration, failures)
            failures, attempt = failures + 1, attempt + 1
        raise CollectionError(
            f'episode {number}: the scripted expert failed in {failures} scenes in a row, the last with seed '
            f'{rollout.seed} and instruction "{rollout.instructed_tasks[-1].instruction}"; check the contract')

    def recovery_start(self, number: int) -> RecoveryStart | None:
        """Return how an episode begins if its task has a grasp; None for a normal demonstration."""
        # Sampled per episode and not per attempt: recovery demonstrations fail more often, so their share would shrink.
        random = np.random.default_rng((self._settings.plan.scene_seed(number), _RECOVERY_START_STREAM))
        return sample_recovery_start(self._settings.recovery_share, random)

    def close(self) -> None:
        """Free the graphics context."""
        self._rig.close()

    def _demonstrate(self, rollout: Rollout, scene: GroundTruth,
                     recovery_start: RecoveryStart | None) -> _Demonstration | None:
        """Demonstrate the task of a rollout; None if that fails."""
        task = rollout.instructed_tasks[0].task
        begin = self._begin(rollout, scene, recovery_start)
        if begin is None:
            return None
        expert = ScriptedExpert(self._contract, task, begin,
                                random=np.random.default_rng((rollout.seed, _MOTION_STREAM)))
        action_noise = ActionNoise(
            self._settings.action_noise, 1.0 / self._contract.control_rate_hz, tuple(begin.arms.values()),
            np.random.default_rng((rollout.seed, _NOISE_STREAM)))
        demonstration = self._record(expert, action_noise, begin, with_ticks=rollout.number < self._bags)
        return demonstration if expert.done and is_task_done(task, scene, demonstration.end) else None

    def _begin(self, rollout: Rollout, scene: GroundTruth, recovery_start: RecoveryStart | None) -> GroundTruth | None:
        """Return the ground truth at the beginning of the recording; None if the recovery start was not reached."""
        task = rollout.instructed_tasks[0].task
        if recovery_start is None or not has_recovery(task.skill):
            return scene
        return move_to_recovery_start(self._contract, task, scene, recovery_start, self._task_scene.step,
                                      np.random.default_rng((rollout.seed, _RECOVERY_STREAM)))

    def _record(self, expert: ScriptedExpert, action_noise: ActionNoise, scene: GroundTruth, *,
                with_ticks: bool) -> _Demonstration:
        """Run the expert and record frames; with ``with_ticks`` every control period too."""
        frames: list[Frame] = []
        ticks: list[ControlTick] = []
        whole = 0
        now, start_ns = scene, scene.stamp_ns
        camera_images, seen = self._render(), scene
        quiet_since_ns = start_ns
        while now.stamp_ns - quiet_since_ns < _TAIL_S * 1e9 and now.stamp_ns - start_ns < LONGEST_S * 1e9:
            if not expert.done:
                quiet_since_ns = now.stamp_ns
            target = expert.step(now)
            if with_ticks:
                ticks.append(self._tick(now, target, camera_images if now is seen else {}))
            now = self._task_scene.step(action_noise.apply(target))
            # The label of a frame is the target commanded for the instant of the next frame.
            if now.stamp_ns - seen.stamp_ns >= self._contract.step_ns:
                frames.append(_frame(seen, self._views(camera_images), target, start_ns))
                whole = len(ticks)
                camera_images, seen = self._render(), now
        return _Demonstration(frames=frames, ticks=ticks[:whole], end=now)

    def _render(self) -> dict[str, CameraImage]:
        return {name: self._rig.render(name) for name in self._contract.cameras}

    def _views(self, camera_images: Mapping[str, CameraImage]) -> dict[str, CameraFrame]:
        simulation = self._task_scene.simulation
        return {name: CameraFrame(rgb=image.rgb, mask=None, intrinsics=intrinsics(simulation, name),
                                  world_from_camera=image.world_from_camera) for name, image in camera_images.items()}

    def _tick(self, now: GroundTruth, target: Target, camera_images: Mapping[str, CameraImage]) -> ControlTick:
        readings = {name: self._task_scene.simulation.readings(name) for name in self._contract.arms}
        return ControlTick(stamp_ns=now.stamp_ns, readings=readings, target=target, images=camera_images)

    def _write(self, rollout: Rollout, demonstration: _Demonstration, failures: int) -> CollectedEpisode:
        file, bag = episode_file(self._folder, rollout.number), bag_folder(self._folder, rollout.number)
        if not file.exists():
            with EpisodeWriter(file, self._facts_of(rollout), jpeg_quality=_JPEG_QUALITY) as writer:
                for frame in demonstration.frames:
                    writer.append_frame(frame)
        instructed = rollout.instructed_tasks[0]
        if rollout.number < self._bags and not is_complete_bag(bag):
            write_bag(bag, self._task_scene.simulation, demonstration.ticks, instruction=instructed.instruction,
                      notes={'program': PROGRAM, 'scene_seed': str(rollout.seed)})
        return CollectedEpisode(
            number=rollout.number, skill=instructed.task.skill.value, instruction=instructed.instruction,
            duration_s=len(demonstration.frames) * self._contract.step_s, frames=len(demonstration.frames),
            size=file.stat().st_size, failures=failures)

    def _facts_of(self, rollout: Rollout) -> EpisodeFacts:
        contract, task = self._contract, rollout.instructed_tasks[0].task
        return EpisodeFacts(
            prompts=tuple(format_instruction(task, number) for number in split_wordings(rollout.split, task)),
            rate_hz=1.0 / contract.step_s, arms=tuple(contract.arms), cameras=tuple(contract.cameras),
            label_source=LabelSource.TARGETS, contract=contract.policy_facts(), source_hash=self._hash,
            converter_version=PROGRAM)


def _frame(seen: GroundTruth, views: Mapping[str, CameraFrame], target: Target, start_ns: int) -> Frame:
    arms = seen.arms.values()
    return Frame(
        stamp_s=(seen.stamp_ns - start_ns) / 1e9, views=views,
        world_from_ee=np.stack([arm.world_from_ee for arm in arms]), gripper=np.array([arm.gripper for arm in arms]),
        desired_world_from_ee=target.world_from_ee, desired_gripper=target.gripper)
