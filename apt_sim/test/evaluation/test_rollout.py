"""Rollouts are determined by their numbers."""

import numpy as np
import pytest

from apt_sim.evaluation.rollout import LIGHT_AND_CAMERA_RANDOMIZATION, RolloutPlan, RolloutSampler, rollout_scene
from apt_sim.evaluation.splits import HELD_OUT_OBJECTS, HELD_OUT_TRAYS, TRAIN_OBJECTS, InstructionSplit, SplitError
from apt_sim.tasks.task import Skill
from apt_sim.tasks.task_scene import TaskScene
from apt_sim.world.physics import Simulation

SKILLS = (Skill.PICK, Skill.PLACE)


@pytest.fixture(scope='module')
def drawer(small):
    return RolloutSampler(small,
                          TaskScene(Simulation(small, rollout_scene(small, LIGHT_AND_CAMERA_RANDOMIZATION))).reset)


def plan(split, skills=SKILLS, seed=0):
    return RolloutPlan(split=split, skills=skills, seed=seed)


@pytest.mark.parametrize('split', list(InstructionSplit))
def test_a_rollout_does_not_depend_on_earlier_ones(drawer, split):
    first = [drawer.sample(plan(split), number)[0] for number in range(4)]
    assert [drawer.sample(plan(split), number)[0] for number in reversed(range(4))] == first[::-1]
    assert len({rollout.seed for rollout in first}) == 4


def test_splits_and_seeds_have_scenes_of_their_own():
    seeds = {plan(split, seed=seed).scene_seed(number) for split in InstructionSplit for seed in (0, 1)
             for number in range(50)}
    assert len(seeds) == 600
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_held_out_objects_are_on_the_table_in_training(drawer):
    scenes = [drawer.sample(plan(InstructionSplit.TRAIN), number) for number in range(30)]
    seen = {name for _, scene, _ in scenes for name in scene.objects}
    assert seen >= set(HELD_OUT_OBJECTS)
    assert {colour for _, scene, _ in scenes for colour in scene.trays} >= set(HELD_OUT_TRAYS)
    asked = {part.task.object for rollout, _, _ in scenes for part in rollout.instructed_tasks}
    assert asked <= set(TRAIN_OBJECTS)
    assert all(len(scene.objects) == 5 and len(scene.trays) == 2 for _, scene, _ in scenes)


def test_both_skills_and_both_arms_are_asked_for(drawer):
    tasks = [drawer.sample(plan(InstructionSplit.SEEN), number)[0].instructed_tasks[0].task for number in range(30)]
    assert {task.skill for task in tasks} == set(SKILLS)
    assert {task.arm for task in tasks} == {'left', 'right'}


def test_a_composed_rollout_begins_with_a_tray_and_continues_with_another_object(drawer):
    for number in range(8):
        first, then = drawer.sample(plan(InstructionSplit.COMPOSED), number)[0].instructed_tasks
        assert first.task.skill is Skill.PLACE and then.task.object != first.task.object


def test_a_split_without_the_skill_that_it_needs_is_refused():
    with pytest.raises(SplitError, match='the split composed requires place'):
        plan(InstructionSplit.COMPOSED, skills=(Skill.PICK,))


def test_further_attempts_have_other_scenes(drawer):
    one, _, attempt = drawer.sample(plan(InstructionSplit.TRAIN), 0)
    other, _, later = drawer.sample(plan(InstructionSplit.TRAIN), 0, first_attempt=attempt + 1)
    assert later > attempt and np.not_equal(one.seed, other.seed)
