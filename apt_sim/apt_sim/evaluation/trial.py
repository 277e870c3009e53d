"""A trial: a scene by its seed, and what is asked for in it.

The number of a trial decides everything about it, so trials can be made in any order and in any process.
Neither who acts nor how success is judged is known here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from apt_policy.core.contract import RobotContract
from apt_sim.evaluation.splits import Split, allows, skills_of, wordings
from apt_sim.tasks.draw import NoTaskError, TaskDrawer
from apt_sim.tasks.episode import Assignment
from apt_sim.tasks.language import draw_phrase
from apt_sim.tasks.task import Situation, Skill, Task
from apt_sim.world.scene import LIGHTS, SceneSettings, Variation
from apt_sim.world.things import ALL_OBJECTS, TRAY_COLOURS

OBJECTS_ON_TABLE = 5
TRAYS_ON_TABLE = 2
# Of 31 bits, so that the parameter of the live simulator holds it.
_SEED_LIMIT = 2**31
_DRAW = 3
_MOST_SCENES = 200
LIGHTS_AND_CAMERAS = replace(LIGHTS, camera_shift=0.015, camera_turn=0.02, fovy_deg=1.5)
"""For training, where the pose of each camera is written beside its pictures."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One scene and the instructions given in it, one after the other."""

    split: Split
    number: int
    seed: int
    """Of the scene, as :meth:`Simulation.reset` takes it."""
    parts: tuple[Assignment, ...]


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """What the trials of one run have in common."""

    split: Split
    skills: tuple[Skill, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        skills_of(self.split, self.skills)

    def scene_seed(self, number: int, attempt: int = 0) -> int:
        """Seed of the scene of a trial; each attempt has another one."""
        entropy = (self.seed, list(Split).index(self.split), number, attempt)
        return int(np.random.SeedSequence(entropy).generate_state(1)[0]) % _SEED_LIMIT


def trial_scene(contract: RobotContract, variation: Variation) -> SceneSettings:
    """The table of all trials, seen through cameras of the policy's resolution."""
    return SceneSettings(objects=ALL_OBJECTS, objects_on_table=OBJECTS_ON_TABLE, trays=tuple(TRAY_COLOURS),
                         trays_on_table=TRAYS_ON_TABLE, variation=variation,
                         image_width=contract.image_size, image_height=contract.image_size)


class TrialDrawer:
    """Finds scenes in which a split can ask for something, and what it asks for."""

    def __init__(self, contract: RobotContract, reset: Callable[[int], Situation]) -> None:
        """``reset`` lays the table out for a seed."""
        self._tasks = TaskDrawer(contract)
        self._reset = reset

    def begin(self, plan: TrialPlan, number: int, *, first_attempt: int = 0) -> tuple[Trial, Situation, int]:
        """Lay the table out for a trial.

        Returns:
            The trial, the situation at its beginning, and the number of the attempt that found it.

        Raises:
            NoTaskError: scene after scene allows nothing.
        """
        for attempt in range(first_attempt, first_attempt + _MOST_SCENES):
            seed = plan.scene_seed(number, attempt)
            scene = self._reset(seed)
            parts = self._parts(plan, scene, np.random.default_rng((seed, _DRAW)))
            if parts:
                return Trial(split=plan.split, number=number, seed=seed, parts=parts), scene, attempt
        raise NoTaskError(f'{plan.split.value}: none of {_MOST_SCENES} scenes allows any of '
                          f'{", ".join(skill.value for skill in plan.skills)}; the arms of this contract reach too '
                          'little of the table')

    def _parts(self, plan: TrialPlan, scene: Situation, random: np.random.Generator) -> tuple[Assignment, ...]:
        first = self._draw(plan.split, skills_of(plan.split, plan.skills), scene, random)
        if first is None:
            return ()
        if plan.split is not Split.COMPOSED:
            return (first,)
        then = self._draw(plan.split, plan.skills, scene, random, besides=first.task)
        return (first, then) if then is not None else ()

    def _draw(self, split: Split, skills: Sequence[Skill], scene: Situation, random: np.random.Generator, *,
              besides: Task | None = None) -> Assignment | None:
        """A skill that the scene allows, then one of its tasks, then words, each evenly."""
        possible = [[task for task in self._tasks.possible(skill, scene)
                     if allows(split, task) and (besides is None or task.object != besides.object)]
                    for skill in skills]
        possible = [tasks for tasks in possible if tasks]
        if not possible:
            return None
        tasks = possible[random.integers(len(possible))]
        task = tasks[random.integers(len(tasks))]
        return Assignment(task=task, instruction=draw_phrase(task, random, among=wordings(split, task)))
