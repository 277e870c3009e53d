"""Instructions of the demonstration."""

from pathlib import Path

import pytest

from apt_demos.demo.demo_runner import interpret_prompts, sample_instructions
from apt_policy.core.contract import load_contract
from apt_sim.evaluation.rollout import rollout_scene
from apt_sim.evaluation.splits import TRAIN_OBJECTS
from apt_sim.tasks.task_sampler import NoTaskError
from apt_sim.tasks.task_scene import TaskScene
from apt_sim.world.objects import ALL_OBJECTS
from apt_sim.world.physics import Simulation
from apt_sim.world.scene import LIGHT_RANDOMIZATION

CONTRACT = load_contract(Path(__file__).resolve().parents[3] / 'apt_bringup' / 'config' / 'aloha_small.yaml')


@pytest.fixture(scope='module')
def task_scene():
    return TaskScene(Simulation(CONTRACT, rollout_scene(CONTRACT, LIGHT_RANDOMIZATION)))


def test_two_sampled_instructions_name_two_training_objects_of_the_scene(task_scene):
    told = 0
    for seed in range(20):
        scene = task_scene.reset(seed)
        try:
            instructions = sample_instructions(CONTRACT, scene, count=2, seed=seed)
        except NoTaskError:
            continue
        told += 1
        objects = [instruction.instructed_task.task.object for instruction in instructions]
        assert len(set(objects)) == 2 and set(objects) <= set(scene.objects) & set(TRAIN_OBJECTS)
        assert all(name in instruction.prompt for instruction, name in zip(instructions, objects, strict=True))
        assert instructions == sample_instructions(CONTRACT, scene, count=2, seed=seed)
    assert told >= 5


def test_a_scene_with_too_few_tasks_is_an_error(task_scene):
    with pytest.raises(NoTaskError, match='expected at least 50'):
        sample_instructions(CONTRACT, task_scene.reset(1), count=50, seed=1)


def test_a_prompt_is_scored_if_it_is_a_task_of_the_scene(task_scene):
    for seed in range(5):
        scene = task_scene.reset(seed)
        for asked in sample_or_none(scene, seed):
            there, gone = interpret_prompts(CONTRACT, scene, [f' {asked.prompt.capitalize()}.', 'dance'])
            assert there.instructed_task.task == asked.instructed_task.task
            assert there.prompt == there.instructed_task.instruction == f'{asked.prompt.capitalize()}.'
            assert (gone.prompt, gone.instructed_task) == ('dance', None)
        absent = next(name for name in ALL_OBJECTS if name not in scene.objects)
        assert interpret_prompts(CONTRACT, scene, [f'pick up the {absent}'])[0].instructed_task is None


def sample_or_none(scene, seed):
    try:
        return sample_instructions(CONTRACT, scene, count=2, seed=seed)
    except NoTaskError:
        return ()
