"""One scripted episode from a seed: scene, task, instruction, demonstration, success check.

The same seed gives the same episode. A callback receives each control period of the :class:`TaskScene`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from apt_policy.core.contract import RobotContract
from apt_policy.core.sample import Target
from apt_sim.tasks.language import sample_instruction
from apt_sim.tasks.scripted_expert import ScriptedExpert
from apt_sim.tasks.success import is_task_done
from apt_sim.tasks.task import GroundTruth, Skill, Task
from apt_sim.tasks.task_sampler import TaskSampler
from apt_sim.tasks.task_scene import TaskScene

LONGEST_S = 60.0
"""Time limit of an episode in simulated time [s]."""

StepCallback = Callable[[GroundTruth, Target], None]


@dataclass(frozen=True, kw_only=True)
class InstructedTask:
    """Task with its language instruction."""

    task: Task
    instruction: str


@dataclass(frozen=True, kw_only=True)
class EpisodeOutcome:
    """Result of a demonstrated episode."""

    instructed_task: InstructedTask
    success: bool
    duration_s: float
    """Duration in simulated time [s]."""
    holds: int
    """Number of control periods in which an IK bridge held."""


def sample_instructed_task(contract: RobotContract, skills: Sequence[Skill], scene: GroundTruth,
                           random: np.random.Generator, *, wordings: Sequence[int] | None = None) -> InstructedTask:
    """Sample a task that is feasible in the scene, and its wording.

    Args:
        contract: description of the robot.
        skills: skills to choose from.
        scene: ground truth at the beginning.
        random: generator to sample from.
        wordings: numbers of the wordings to choose from; None allows all.

    Raises:
        NoTaskError: the scene allows none of ``skills``.
    """
    task = TaskSampler(contract).sample(skills, scene, random)
    return InstructedTask(task=task, instruction=sample_instruction(task, random, among=wordings))


def demonstrate(task_scene: TaskScene, skills: Sequence[Skill], seed: int, *,
                on_step: StepCallback | None = None) -> EpisodeOutcome:
    """Reset the scene to ``seed``, demonstrate one task and check its success.

    Args:
        task_scene: simulation with its IK bridges.
        skills: skills to choose the task from.
        seed: seed of scene, task and motion.
        on_step: called with the ground truth and the target of each control period.

    Raises:
        NoTaskError: the scene of this seed allows none of ``skills``.
    """
    contract, random = task_scene.simulation.contract, np.random.default_rng(seed)
    now = before = task_scene.reset(seed)
    instructed_task = sample_instructed_task(contract, skills, before, random)
    expert = ScriptedExpert(contract, instructed_task.task, before, random=random, epoch=seed)
    end_ns = before.stamp_ns + round(LONGEST_S * 1e9)
    while not expert.done and now.stamp_ns < end_ns:
        target = expert.step(now)
        if on_step is not None:
            on_step(now, target)
        now = task_scene.step(target)
    return EpisodeOutcome(instructed_task=instructed_task, success=is_task_done(instructed_task.task, before, now),
                          duration_s=(now.stamp_ns - before.stamp_ns) / 1e9, holds=len(task_scene.holds))
