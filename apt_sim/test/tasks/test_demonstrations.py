"""Scripted expert in physics, through the real inverse kinematics."""

from dataclasses import replace

import numpy as np
import pytest

from apt_policy.core.geometry import angle_between
from apt_sim.tasks.episode import demonstrate, sample_instructed_task
from apt_sim.tasks.grasp import GraspGeometry
from apt_sim.tasks.scripted_expert import ScriptedExpert
from apt_sim.tasks.skill_scripts import SkillScripts
from apt_sim.tasks.success import is_task_done
from apt_sim.tasks.task import Skill, Task
from apt_sim.tasks.task_sampler import TaskSampler
from apt_sim.tasks.task_scene import ground_truth


@pytest.mark.parametrize(('skill', 'seeds'), [
    (Skill.PICK, (0, 1)), (Skill.PLACE, (0, 2)), (Skill.HAND_OVER, (0,)), (Skill.PUSH, (0, 1))],
    ids=lambda value: value.value if isinstance(value, Skill) else '')
def test_the_scripted_expert_does_its_task(task_scene, skill, seeds):
    for seed in seeds:
        outcome = demonstrate(task_scene, [skill], seed)
        assert outcome.success, f'seed {seed}: {outcome.instructed_task}'
        assert outcome.holds == 0


def test_it_stays_within_the_limits_that_safety_would_enforce(task_scene, contract):
    """The recorded target is then the executed one."""
    poses, touched = [], set()

    def record_step(now, target):
        poses.append(target.world_from_ee)
        touched.update(pair for pair in task_scene.simulation.touching() if any('link' in body for body in pair))

    demonstrate(task_scene, [Skill.PLACE], 0, on_step=record_step)
    path = np.stack(poses)
    steps = np.linalg.norm(np.diff(path[:, :, :3, 3], axis=0), axis=-1)
    turns = angle_between(path[1:, :, :3, :3], path[:-1, :, :3, :3])
    assert steps.max() * contract.control_rate_hz <= contract.safety.linear_speed * 1.001
    assert turns.max() * contract.control_rate_hz <= contract.safety.angular_speed * 1.001
    for index, arm in enumerate(contract.arms.values()):
        moved = path[np.linalg.norm(path[:, index, :3, 3] - path[0, index, :3, 3], axis=-1) > 0.15]
        if len(moved):
            assert moved[:, index, 2, 3].min() >= arm.workspace.lower[2]


def test_the_same_seed_gives_the_same_demonstration(task_scene):
    def paths():
        heights = []
        demonstrate(task_scene, [Skill.PICK], 3, on_step=lambda now,
                    target: heights.append(target.world_from_ee.copy()))
        return np.stack(heights)
    np.testing.assert_array_equal(paths(), paths())


def test_without_closing_the_gripper_nothing_is_picked(task_scene, contract):
    """The success criterion does not depend on the distance of the hand alone."""
    before = now = task_scene.reset(0)
    instructed_task = sample_instructed_task(contract, [Skill.PICK], before, np.random.default_rng(0))
    expert = ScriptedExpert(contract, instructed_task.task, before, random=np.random.default_rng(0))
    while not expert.done:
        target = expert.step(now)
        now = task_scene.step(replace(target, gripper=np.ones_like(target.gripper)))
    assert not is_task_done(instructed_task.task, before, now)


@pytest.mark.parametrize(('height', 'labels'), [
    (0.07, ['up', 'above', 'grasp']), (0.12, ['above', 'grasp']), (0.35, ['above', 'grasp'])])
def test_a_hand_beside_the_object_rises_no_more_than_needed(contract, scene, height, labels):
    """The hand rises straight up first, and not to travel height."""
    begin = scene(objects={'red cube': (-0.1, 0.5, 0.02)}, arms={'left': (-0.06, 0.5, height)})
    task = Task(skill=Skill.PICK, arm='left', object='red cube')
    script = SkillScripts(contract, np.random.default_rng(0)).waypoints(task, begin)
    steps = [next(script), *(script.send(begin) for _ in labels[1:])]
    assert [step.label.split()[0] for step in steps] == labels
    *_, over, grasp = steps
    clear = GraspGeometry(contract, 'left').clear_height
    assert over.world_from_ee[2, 3] == pytest.approx(min(max(height, clear), 0.16), abs=0.01)
    assert grasp.world_from_ee[:2, 3] == pytest.approx(over.world_from_ee[:2, 3])
    if labels[0] == 'up':
        assert steps[0].world_from_ee[:3, 3] == pytest.approx([-0.06, 0.5, clear]) and steps[0].gripper == 1.0


def test_a_cube_that_slipped_is_tried_again(task_scene, contract):
    """The second attempt uses the current pose of the cube."""
    before = now = task_scene.reset(0)
    drawer = TaskSampler(contract)
    task: Task = next(iter(drawer.feasible_tasks(Skill.PICK, before)))
    expert = ScriptedExpert(contract, task, before, random=np.random.default_rng(0))
    grasps = 0
    label = ''
    while not expert.done:
        target = expert.step(now)
        grasps += expert.label != label and expert.label.startswith('grasp')
        label = expert.label
        if grasps == 1:
            target = replace(target, gripper=np.ones_like(target.gripper))
        now = task_scene.step(target)
    assert grasps == 2 and is_task_done(task, before, now)


def test_both_arms_get_targets_at_every_tick_and_the_idle_one_stays(task_scene, contract):
    before = task_scene.reset(0)
    task = next(task for task in TaskSampler(contract).feasible_tasks(Skill.PICK, before) if task.arm == 'left')
    expert = ScriptedExpert(contract, task, before, random=np.random.default_rng(0), epoch=7)
    target = expert.step(before)
    assert target.valid_arms.all() and target.epoch == 7
    assert target.due_ns == before.stamp_ns + round(1e9 / contract.control_rate_hz)
    now = before
    for _ in range(100):
        now = task_scene.step(expert.step(now))
    idle = expert.step(now).world_from_ee[list(contract.arms).index('right')]
    np.testing.assert_array_equal(idle, before.arms['right'].world_from_ee)
    assert np.linalg.norm(ground_truth(task_scene.simulation).arms['right'].world_from_ee[:3, 3]
                          - before.arms['right'].world_from_ee[:3, 3]) < 0.005
