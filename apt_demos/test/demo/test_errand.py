"""Instructions of the demonstration."""

from pathlib import Path

import pytest

from apt_demos.demo.errand import drawn, typed
from apt_policy.core.contract import load_contract
from apt_sim.evaluation.splits import TAUGHT_OBJECTS
from apt_sim.evaluation.trial import trial_scene
from apt_sim.tasks.draw import NoTaskError
from apt_sim.tasks.stage import Stage
from apt_sim.world.physics import Simulation
from apt_sim.world.scene import LIGHTS
from apt_sim.world.things import ALL_OBJECTS

CONTRACT = load_contract(Path(__file__).resolve().parents[3] / 'apt_bringup' / 'config' / 'aloha_small.yaml')


@pytest.fixture(scope='module')
def stage():
    return Stage(Simulation(CONTRACT, trial_scene(CONTRACT, LIGHTS)))


def test_two_instructions_speak_of_two_taught_objects_of_the_scene(stage):
    told = 0
    for seed in range(20):
        scene = stage.reset(seed)
        try:
            errands = drawn(CONTRACT, scene, count=2, seed=seed)
        except NoTaskError:
            continue
        told += 1
        objects = [errand.assignment.task.object for errand in errands]
        assert len(set(objects)) == 2 and set(objects) <= set(scene.objects) & set(TAUGHT_OBJECTS)
        assert all(name in errand.prompt for errand, name in zip(errands, objects, strict=True))
        assert errands == drawn(CONTRACT, scene, count=2, seed=seed)
    assert told >= 5


def test_a_scene_with_too_little_to_ask_for_says_so(stage):
    with pytest.raises(NoTaskError, match='50 are wanted'):
        drawn(CONTRACT, stage.reset(1), count=50, seed=1)


def test_an_instruction_that_a_user_types_is_scored_where_it_is_a_task_of_the_scene(stage):
    for seed in range(5):
        scene = stage.reset(seed)
        for asked in drawn_or_none(scene, seed):
            there, gone = typed(CONTRACT, scene, [f' {asked.prompt.capitalize()}.', 'dance'])
            assert there.assignment.task == asked.assignment.task
            assert there.prompt == there.assignment.instruction == f'{asked.prompt.capitalize()}.'
            assert (gone.prompt, gone.assignment) == ('dance', None)
        absent = next(name for name in ALL_OBJECTS if name not in scene.objects)
        assert typed(CONTRACT, scene, [f'pick up the {absent}'])[0].assignment is None


def drawn_or_none(scene, seed):
    try:
        return drawn(CONTRACT, scene, count=2, seed=seed)
    except NoTaskError:
        return ()
