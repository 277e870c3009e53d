"""Rollouts: a scene by its seed, and its instructions.

The number of a rollout determines everything about it, so rollouts can run in any order and in any process.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from apt_policy.core.contract import RobotContract
from apt_sim.evaluation.splits import InstructionSplit, first_skills, is_in_split, split_wordings
from apt_sim.tasks.episode import InstructedTask
from apt_sim.tasks.language import sample_instruction
from apt_sim.tasks.task import GroundTruth, Skill, Task
from apt_sim.tasks.task_sampler import NoTaskError, TaskSampler
from apt_sim.world.objects import ALL_OBJECTS, TRAY_COLOURS
from apt_sim.world.scene import LIGHT_RANDOMIZATION, RandomizationConfig, SceneConfig

OBJECTS_ON_TABLE = 5
"""Number of objects on the table in every rollout."""
TRAYS_ON_TABLE = 2
"""Number of trays on the table in every rollout."""
# 31 bits, the range of the live simulator's parameter.
_SEED_LIMIT = 2**31
# Random stream of a scene's seed for its tasks; layout, objects and appearance have their own.
_TASK_STREAM = 3
_MAX_SCENES = 200
LIGHT_AND_CAMERA_RANDOMIZATION = replace(LIGHT_RANDOMIZATION, camera_shift=0.015, camera_turn=0.02, fovy_deg=1.5)
"""Randomised lights and camera poses for training data, which records the pose of each image's camera."""


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """Scene and its successive instructions."""

    split: InstructionSplit
    number: int
    seed: int
    """Seed of the scene for :meth:`Simulation.reset`."""
    instructed_tasks: tuple[InstructedTask, ...]


@dataclass(frozen=True, kw_only=True)
class RolloutPlan:
    """Split, skills and seed of a set of rollouts."""

    split: InstructionSplit
    skills: tuple[Skill, ...]
    seed: int = 0
    """Seed of all scenes."""

    def __post_init__(self) -> None:
        first_skills(self.split, self.skills)

    def scene_seed(self, number: int, attempt: int = 0) -> int:
        """Return the seed of a rollout's scene; each attempt has another one."""
        entropy = (self.seed, list(InstructionSplit).index(self.split), number, attempt)
        return int(np.random.SeedSequence(entropy).generate_state(1)[0]) % _SEED_LIMIT


def rollout_scene(contract: RobotContract, variation: RandomizationConfig) -> SceneConfig:
    """Return the scene of all rollouts, with images of the contract's size."""
    return SceneConfig(objects=ALL_OBJECTS, objects_on_table=OBJECTS_ON_TABLE, trays=tuple(TRAY_COLOURS),
                       trays_on_table=TRAYS_ON_TABLE, variation=variation,
                       image_width=contract.image_size, image_height=contract.image_size)


class RolloutSampler:
    """Sampler of scenes with feasible instructions of a split."""

    def __init__(self, contract: RobotContract, reset: Callable[[int], GroundTruth]) -> None:
        """Prepare the task sampler.

        Args:
            contract: description of the robot.
            reset: resets the simulation to a seed and returns its ground truth.
        """
        self._tasks = TaskSampler(contract)
        self._reset = reset

    def sample(self, plan: RolloutPlan, number: int, *, first_attempt: int = 0) -> tuple[Rollout, GroundTruth, int]:
        """Sample a rollout and reset the simulation to its scene.

        Args:
            plan: split, skills and seed.
            number: number of the rollout.
            first_attempt: first attempt to try; each one has another scene.

        Returns:
            The rollout, the ground truth at its beginning, and the number of the successful attempt.

        Raises:
            NoTaskError: no scene has a feasible task.
        """
        for attempt in range(first_attempt, first_attempt + _MAX_SCENES):
            seed = plan.scene_seed(number, attempt)
            scene = self._reset(seed)
            instructed_tasks = self._sample_tasks(plan, scene, np.random.default_rng((seed, _TASK_STREAM)))
            if instructed_tasks:
                rollout = Rollout(split=plan.split, number=number, seed=seed, instructed_tasks=instructed_tasks)
                return rollout, scene, attempt
        raise NoTaskError(f'{plan.split.value}: none of {_MAX_SCENES} scenes has a feasible task for the skills '
                          f'{", ".join(skill.value for skill in plan.skills)}; check the workspaces in the contract')

    def _sample_tasks(self, plan: RolloutPlan, scene: GroundTruth,
                      random: np.random.Generator) -> tuple[InstructedTask, ...]:
        first = self._sample_task(plan.split, first_skills(plan.split, plan.skills), scene, random)
        if first is None:
            return ()
        if plan.split is not InstructionSplit.COMPOSED:
            return (first,)
        then = self._sample_task(plan.split, plan.skills, scene, random, besides=first.task)
        return (first, then) if then is not None else ()

    def _sample_task(self, split: InstructionSplit, skills: Sequence[Skill], scene: GroundTruth,
                     random: np.random.Generator, *,
                     besides: Task | None = None) -> InstructedTask | None:
        """Sample a feasible skill, one of its tasks and a wording, each uniformly; None if nothing is feasible."""
        possible = [[task for task in self._tasks.feasible_tasks(skill, scene)
                     if is_in_split(split, task) and (besides is None or task.object != besides.object)]
                    for skill in skills]
        possible = [tasks for tasks in possible if tasks]
        if not possible:
            return None
        tasks = possible[random.integers(len(possible))]
        task = tasks[random.integers(len(tasks))]
        instruction = sample_instruction(task, random, among=split_wordings(split, task))
        return InstructedTask(task=task, instruction=instruction)
