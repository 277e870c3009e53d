"""The demonstrator does what it was asked, in physics, through the real inverse kinematics."""

from dataclasses import replace

import numpy as np
import pytest

from apt_policy.core.geometry import angle_between
from apt_sim.tasks.demonstrator import Demonstrator
from apt_sim.tasks.draw import TaskDrawer
from apt_sim.tasks.episode import assign, demonstrate
from apt_sim.tasks.grasp import GraspGeometry
from apt_sim.tasks.script import Scripts
from apt_sim.tasks.stage import situation
from apt_sim.tasks.success import done
from apt_sim.tasks.task import Skill, Task


@pytest.mark.parametrize(('skill', 'seeds'), [
    (Skill.PICK, (0, 1)), (Skill.PLACE, (0, 2)), (Skill.HAND_OVER, (0,)), (Skill.PUSH, (0, 1))],
    ids=lambda value: value.value if isinstance(value, Skill) else '')
def test_the_demonstrator_does_what_it_was_asked(stage, skill, seeds):
    for seed in seeds:
        outcome = demonstrate(stage, [skill], seed)
        assert outcome.success, f'seed {seed}: {outcome.assignment}'
        assert outcome.holds == 0


def test_it_stays_within_the_limits_that_safety_would_enforce(stage, contract):
    """So that what is recorded as the target is what was executed."""
    poses, touched = [], set()

    def watch(now, target):
        poses.append(target.world_from_ee)
        touched.update(pair for pair in stage.simulation.touching() if any('link' in body for body in pair))

    demonstrate(stage, [Skill.PLACE], 0, watch=watch)
    path = np.stack(poses)
    steps = np.linalg.norm(np.diff(path[:, :, :3, 3], axis=0), axis=-1)
    turns = angle_between(path[1:, :, :3, :3], path[:-1, :, :3, :3])
    assert steps.max() * contract.control_rate_hz <= contract.safety.linear_speed * 1.001
    assert turns.max() * contract.control_rate_hz <= contract.safety.angular_speed * 1.001
    for index, arm in enumerate(contract.arms.values()):
        moved = path[np.linalg.norm(path[:, index, :3, 3] - path[0, index, :3, 3], axis=-1) > 0.15]
        if len(moved):
            assert moved[:, index, 2, 3].min() >= arm.workspace.lower[2]


def test_the_same_seed_gives_the_same_demonstration(stage):
    def paths():
        heights = []
        demonstrate(stage, [Skill.PICK], 3, watch=lambda now, target: heights.append(target.world_from_ee.copy()))
        return np.stack(heights)
    np.testing.assert_array_equal(paths(), paths())


def test_without_closing_the_gripper_nothing_is_picked(stage, contract):
    """The success test is no accident of how close the hand comes."""
    before = now = stage.reset(0)
    assignment = assign(contract, [Skill.PICK], before, np.random.default_rng(0))
    demonstrator = Demonstrator(contract, assignment.task, before, random=np.random.default_rng(0))
    while not demonstrator.done:
        target = demonstrator.step(now)
        now = stage.follow(replace(target, gripper=np.ones_like(target.gripper)))
    assert not done(assignment.task, before, now)


@pytest.mark.parametrize(('height', 'labels'), [
    (0.07, ['up', 'above', 'grasp']), (0.12, ['above', 'grasp']), (0.35, ['above', 'grasp'])])
def test_a_hand_beside_the_thing_rises_no_more_than_it_must(contract, scene, height, labels):
    """Straight up before it goes over, and not to the height for a way across the table."""
    begin = scene(objects={'red cube': (-0.1, 0.5, 0.02)}, arms={'left': (-0.06, 0.5, height)})
    task = Task(skill=Skill.PICK, arm='left', object='red cube')
    script = Scripts(contract, np.random.default_rng(0)).of(task, begin)
    steps = [next(script), *(script.send(begin) for _ in labels[1:])]
    assert [step.label.split()[0] for step in steps] == labels
    *_, over, grasp = steps
    clear = GraspGeometry(contract, 'left').clear_height
    assert over.world_from_ee[2, 3] == pytest.approx(min(max(height, clear), 0.16), abs=0.01)
    assert grasp.world_from_ee[:2, 3] == pytest.approx(over.world_from_ee[:2, 3])
    if labels[0] == 'up':
        assert steps[0].world_from_ee[:3, 3] == pytest.approx([-0.06, 0.5, clear]) and steps[0].gripper == 1.0


def test_a_cube_that_slipped_is_tried_again(stage, contract):
    """The scene is asked again where the cube is, before the second attempt."""
    before = now = stage.reset(0)
    drawer = TaskDrawer(contract)
    task: Task = next(iter(drawer.possible(Skill.PICK, before)))
    demonstrator = Demonstrator(contract, task, before, random=np.random.default_rng(0))
    grasps = 0
    label = ''
    while not demonstrator.done:
        target = demonstrator.step(now)
        grasps += demonstrator.label != label and demonstrator.label.startswith('grasp')
        label = demonstrator.label
        if grasps == 1:
            target = replace(target, gripper=np.ones_like(target.gripper))
        now = stage.follow(target)
    assert grasps == 2 and done(task, before, now)


def test_both_arms_are_told_at_every_tick_and_the_idle_one_stays(stage, contract):
    before = stage.reset(0)
    task = next(task for task in TaskDrawer(contract).possible(Skill.PICK, before) if task.arm == 'left')
    demonstrator = Demonstrator(contract, task, before, random=np.random.default_rng(0), epoch=7)
    target = demonstrator.step(before)
    assert target.valid_arms.all() and target.epoch == 7
    assert target.due_ns == before.stamp_ns + round(1e9 / contract.control_rate_hz)
    now = before
    for _ in range(100):
        now = stage.follow(demonstrator.step(now))
    idle = demonstrator.step(now).world_from_ee[list(contract.arms).index('right')]
    np.testing.assert_array_equal(idle, before.arms['right'].world_from_ee)
    assert np.linalg.norm(situation(stage.simulation).arms['right'].world_from_ee[:3, 3]
                          - before.arms['right'].world_from_ee[:3, 3]) < 0.005
