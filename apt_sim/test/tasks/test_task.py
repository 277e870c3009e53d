"""Feasible tasks of a scene, their wordings and their success criteria."""

import itertools

import numpy as np
import pytest

from apt_sim.tasks import language
from apt_sim.tasks.demonstrator_node import DemonstratorParams
from apt_sim.tasks.grasp import EE_FROM_TOOL_CENTRE
from apt_sim.tasks.success import is_task_done
from apt_sim.tasks.task import Side, Skill, Task
from apt_sim.tasks.task_sampler import NoTaskError, TaskSampler
from apt_sim.tasks.task_scene import ground_truth

TOOL = EE_FROM_TOOL_CENTRE[0]
PICK = Task(skill=Skill.PICK, object='red cube', arm='left')
PLACE = Task(skill=Skill.PLACE, object='red cube', arm='left', tray='white')
HAND = Task(skill=Skill.HAND_OVER, object='red cube', arm='left', receiver='right')
PUSH = Task(skill=Skill.PUSH, object='red cube', arm='left', side=Side.RIGHT)


@pytest.fixture
def possible(contract):
    sampler = TaskSampler(contract)
    return lambda skill, scene: list(sampler.feasible_tasks(skill, scene))


def test_only_arms_that_reach_the_cube_are_asked(possible, scene):
    cubes = {'red cube': (-0.2, 0.5, 0.02), 'blue cube': (0.2, 0.5, 0.02), 'green cube': (0.01, 0.4, 0.02)}
    arms = {(task.object, task.arm) for task in possible(Skill.PICK, scene(objects=cubes))}
    assert arms == {('red cube', 'left'), ('blue cube', 'right'), ('green cube', 'left'), ('green cube', 'right')}


def test_an_instruction_that_names_no_arm_means_the_nearer_one(possible, scene):
    unnamed = [task.arm for task in possible(Skill.PICK, scene(objects={'red cube': (0.01, 0.4, 0.02)}))
               if not task.arm_named]
    assert unnamed == ['right']


def test_a_tray_beyond_the_arm_s_reach_is_not_asked_for(possible, scene):
    trays = {'white': (-0.12, 0.78, 0.0), 'black': (0.12, 0.78, 0.0)}
    tasks = possible(Skill.PLACE, scene(objects={'red cube': (-0.2, 0.5, 0.02)}, trays=trays))
    assert {(task.arm, task.tray) for task in tasks} == {('left', 'white')}


def test_nothing_is_pushed_into_something_else_or_off_the_workspace(possible, scene):
    sides = lambda cubes: {t.side for t in possible(Skill.PUSH, scene(objects=cubes)) if t.object == 'red cube'}  # noqa: E731
    assert sides({'red cube': (-0.15, 0.5, 0.02)}) == {Side.LEFT, Side.RIGHT}
    assert sides({'red cube': (-0.15, 0.5, 0.02), 'blue cube': (-0.27, 0.5, 0.02)}) == {Side.RIGHT}
    assert sides({'red cube': (-0.15, 0.5, 0.02), 'blue cube': (-0.23, 0.5, 0.02)}) == set()
    assert sides({'red cube': (-0.30, 0.5, 0.02)}) == set(), 'there is no room for the hand behind it, nor to the left'


def test_cubes_that_are_not_on_the_table_are_left_alone(possible, scene):
    assert possible(Skill.PICK, scene(objects={'red cube': (-0.2, 0.5, 0.10)})) == []


def test_a_hand_over_needs_a_free_place_in_the_middle(contract, possible, scene):
    row = {str(k): (0.0, 0.32 + 0.08 * k, 0.02) for k in range(5)}
    assert possible(Skill.HAND_OVER, scene(objects={'red cube': (-0.2, 0.5, 0.02)}))[0].receiver == 'right'
    assert not possible(Skill.HAND_OVER, scene(objects={'red cube': (-0.2, 0.5, 0.02), **row}))
    place = TaskSampler(contract).handover_position(scene(objects={'red cube': (0.0, 0.5, 0.02)}), 'left', 'right')
    assert np.linalg.norm(place[:2] - (0.0, 0.5)) >= 0.085


def test_tasks_are_drawn_by_the_seed_and_of_every_skill(contract, task_scene):
    sampler, scene = TaskSampler(contract), ground_truth(task_scene.simulation)
    draw = lambda seed: sampler.sample(list(Skill), scene, np.random.default_rng(seed))  # noqa: E731
    tasks = [draw(seed) for seed in range(30)]
    assert tasks == [draw(seed) for seed in range(30)]
    assert {task.skill for task in tasks} == set(Skill)
    assert len(set(tasks)) > 10


def test_an_empty_table_has_no_feasible_task(contract, scene):
    with pytest.raises(NoTaskError, match='pick or push is not feasible'):
        TaskSampler(contract).sample([Skill.PICK, Skill.PUSH], scene(objects={}), np.random.default_rng(0))


@pytest.mark.parametrize('fields', [
    {'skill': Skill.PLACE}, {'skill': Skill.PICK, 'tray': 'white'}, {'skill': Skill.PUSH},
    {'skill': Skill.HAND_OVER, 'receiver': 'right', 'side': Side.LEFT}])
def test_a_task_has_what_its_skill_needs_and_nothing_else(fields):
    with pytest.raises(ValueError, match='requires it, and no other skill accepts it'):
        Task(object='red cube', arm='left', **fields)


# Language ---------------------------------------------------------------------------------------

TASKS = [PICK, PLACE, HAND, PUSH, Task(skill=Skill.PICK, object='blue cube', arm='right', arm_named=True),
         Task(skill=Skill.PLACE, object='blue cube', arm='right', arm_named=True, tray='black'),
         Task(skill=Skill.PUSH, object='blue cube', arm='right', arm_named=True, side=Side.LEFT)]


@pytest.mark.parametrize('task', TASKS, ids=lambda task: f'{task.skill.value} {task.arm_named}')
def test_every_wording_says_all_that_the_task_needs(task):
    sentences = [language.format_instruction(task, number) for number in range(language.wording_count(task))]
    assert len(set(sentences)) == len(sentences) >= 12
    for sentence in sentences:
        assert task.object.split()[0] in sentence and '{' not in sentence
        assert task.tray in sentence and (not task.side or task.side.value in sentence)
        if task.arm_named:
            assert task.arm in sentence
        if task.receiver:
            assert f'the {task.receiver}' in sentence or f'your {task.receiver}' in sentence


def test_no_sentence_serves_two_tasks():
    """An ambiguous instruction would make half of the demonstrations wrong."""
    variants = [Task(skill=Skill.PICK, object='red cube', arm='left', arm_named=True),
                Task(skill=Skill.PUSH, object='red cube', arm='left', side=Side.LEFT), PICK, PLACE, HAND, PUSH]
    said = [{language.format_instruction(task, k) for k in range(language.wording_count(task))} for task in variants]
    for first, second in itertools.combinations(said, 2):
        assert not first & second


def scene_tasks():
    """Return every task with three objects, two trays and two arms."""
    for name, arm in itertools.product(('red cube', 'red cup', 'blue bar'), ('left', 'right')):
        # A task of the other arm would have to name it.
        for said in (True, False) if arm == 'left' else (True,):
            yield Task(skill=Skill.PICK, object=name, arm=arm, arm_named=said)
            yield from (Task(skill=Skill.PLACE, object=name, arm=arm, arm_named=said, tray=tray)
                        for tray in ('white', 'red'))
            yield from (Task(skill=Skill.PUSH, object=name, arm=arm, arm_named=said, side=side) for side in Side)
        if arm == 'left':
            yield Task(skill=Skill.HAND_OVER, object=name, arm='left', receiver='right')


def test_every_wording_of_every_task_is_understood_as_that_task():
    tasks = list(scene_tasks())
    random = np.random.default_rng(0)
    for task in tasks:
        # Every wording is parsed to its own task among all others, and to none without it.
        instruction = language.sample_instruction(task, random)
        assert language.parse_instruction(instruction, tasks) == task
        assert language.parse_instruction(instruction, [other for other in tasks if other != task]) is None
    # One task of each kind in every wording, of training and held out.
    for task in TASKS:
        for number in range(language.wording_count(task)):
            assert language.parse_instruction(language.format_instruction(task, number), [task]) == task


def test_no_two_tasks_of_a_scene_share_a_wording():
    said = [language.format_instruction(task, number) for task in scene_tasks()
            for number in range(language.wording_count(task))]
    assert len(set(said)) == len(said)


@pytest.mark.parametrize('typed', ['Pick up the red cube', ' pick  up the red block. ', 'PICK UP THE RED CUBE!'])
def test_a_person_may_type_an_instruction_as_people_do(typed):
    assert language.parse_instruction(typed, [PUSH, PICK]) == PICK


@pytest.mark.parametrize('typed', ['dance', '', 'pick up the red cube and dance', 'pick up the blue cube', 'pick up'])
def test_what_is_no_wording_is_not_guessed_at(typed):
    assert language.parse_instruction(typed, [PICK, PLACE, HAND, PUSH]) is None


def test_wordings_can_be_held_out():
    random = np.random.default_rng(0)
    drawn = {language.sample_instruction(PICK, random, among=[0, 1, 2]) for _ in range(100)}
    assert drawn == {language.format_instruction(PICK, number) for number in (0, 1, 2)}
    with pytest.raises(IndexError, match='wording of pick is 99, expected 0 to'):
        language.format_instruction(PICK, 99)


# Success ----------------------------------------------------------------------------------------

AT_CUBE = {'left': (-0.2, 0.5, 0.12)}


@pytest.mark.parametrize(('task', 'place', 'arms', 'expected'), [
    (PICK, (-0.2 + TOOL, 0.5, 0.12), AT_CUBE, True),
    (PICK, (-0.2 + TOOL, 0.5, 0.05), AT_CUBE, False),
    (PICK, (-0.2, 0.4, 0.12), AT_CUBE, False),
    (PLACE, (-0.12, 0.78, 0.024), None, True),
    (PLACE, (-0.12, 0.78, 0.10), None, False),
    (PLACE, (-0.12, 0.70, 0.024), None, False),
    (PLACE, (0.12, 0.78, 0.024), None, False),
    (HAND, (0.2 + TOOL, 0.5, 0.12), {'right': (0.2, 0.5, 0.12)}, True),
    (HAND, (-0.2 + TOOL, 0.5, 0.12), AT_CUBE, False),
    (PUSH, (-0.10, 0.5, 0.02), None, True),
    (PUSH, (-0.17, 0.5, 0.02), None, False),
    (PUSH, (-0.30, 0.5, 0.02), None, False),
    (PUSH, (-0.10, 0.6, 0.02), None, False),
    (PUSH, (-0.10, 0.5, 0.12), None, False)])
def test_a_task_is_done_when_the_objects_are_at_its_goal(scene, task, place, arms, expected):
    trays = {'white': (-0.12, 0.78, 0.0), 'black': (0.12, 0.78, 0.0)}
    before = scene(objects={'red cube': (-0.2, 0.5, 0.02)}, trays=trays)
    after = scene(objects={'red cube': place}, trays=trays, arms=arms)
    assert is_task_done(task, before, after) is expected
    assert not is_task_done(task, before, before)


def test_skills_are_checked_before_anything_moves():
    with pytest.raises(ValueError, match='skills is juggle, expected one or more of pick'):
        DemonstratorParams(contract='c', skills=('pick', 'juggle'))
    with pytest.raises(ValueError, match='skills is empty'):
        DemonstratorParams(contract='c', skills=())
