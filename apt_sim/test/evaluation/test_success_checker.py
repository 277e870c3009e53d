"""Success and failure of a rollout."""

from dataclasses import replace

import numpy as np
import pytest

from apt_policy.core.geometry import make_pose
from apt_policy.core.sample import ArmState
from apt_sim.evaluation.success_checker import SETTLE_TIME_S, TIME_LIMITS_S, EpisodeState, FailureKind, SuccessChecker
from apt_sim.tasks.episode import InstructedTask
from apt_sim.tasks.grasp import EE_FROM_TOOL_CENTRE
from apt_sim.tasks.task import GroundTruth, Skill, Task

PICK = InstructedTask(task=Task(skill=Skill.PICK, object='red cube', arm='left'), instruction='pick up the red cube')
PLACE = InstructedTask(task=Task(skill=Skill.PLACE, object='red cube', arm='left', tray='white'),
                       instruction='put the red cube into the white tray')
TABLE = {'red cube': (-0.2, 0.4, 0.02), 'blue cup': (0.2, 0.4, 0.02)}
TRAYS = {'white': (-0.1, 0.78, 0.0), 'black': (0.1, 0.78, 0.0)}
HELD = (-0.2, 0.4, 0.12)


def hand_at(place):
    """Return the state of a hand that points down, with a point (3,) between its fingers."""
    down = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    return ArmState(world_from_ee=make_pose(down, (place[0], place[1], place[2] + EE_FROM_TOOL_CENTRE[0])),
                    gripper=0.5)


def table(seconds, **objects):
    """Return the ground truth after a time with moved objects; both hands are at the held red cube."""
    places = TABLE | {name.replace('_', ' '): place for name, place in objects.items()}
    return GroundTruth(
        stamp_ns=round(seconds * 1e9), arms=dict.fromkeys(('left', 'right'), hand_at(HELD)),
        objects={name: make_pose(np.eye(3), place) for name, place in places.items()},
        trays={colour: make_pose(np.eye(3), place) for colour, place in TRAYS.items()})


def test_a_task_is_done_when_its_criterion_has_held_for_a_while():
    checker = SuccessChecker([PICK], table(0))
    assert checker.update(table(1.0, red_cube=HELD)).state is EpisodeState.RUNNING
    assert checker.update(table(1.0 + SETTLE_TIME_S, red_cube=HELD)).state is EpisodeState.SUCCESS


def test_a_cube_that_slips_at_once_was_not_picked():
    checker = SuccessChecker([PICK], table(0))
    for seconds in np.arange(1.0, 5.0, 0.2):
        place = HELD if round(seconds * 5) % 2 else TABLE['red cube']
        assert checker.update(table(seconds, red_cube=place)).state is EpisodeState.RUNNING


def test_lifting_another_object_fails():
    checker = SuccessChecker([PICK], table(0))
    checker.update(table(1.0, blue_cup=(0.2, 0.4, 0.12)))
    status = checker.update(table(1.5, blue_cup=(0.2, 0.4, 0.12)))
    assert status.state is EpisodeState.FAILURE and status.reason == 'lifted the blue cup'
    assert status.failure is FailureKind.WRONG_OBJECT


def test_filling_another_tray_fails():
    checker = SuccessChecker([PLACE], table(0))
    checker.update(table(1.0, red_cube=(0.1, 0.78, 0.024)))
    status = checker.update(table(1.5, red_cube=(0.1, 0.78, 0.024)))
    assert status.state is EpisodeState.FAILURE and status.reason == 'put it into the black tray'
    assert status.failure is FailureKind.WRONG_TRAY


def test_time_runs_out():
    checker = SuccessChecker([PICK], table(0))
    limit_s = TIME_LIMITS_S[Skill.PICK]
    assert checker.update(table(limit_s - 0.1)).state is EpisodeState.RUNNING
    status = checker.update(table(limit_s))
    assert status.failure is FailureKind.TIME_OVER and status.reason == f'not done in {limit_s:g} s'


def test_the_second_instruction_begins_when_the_first_is_done_and_has_its_own_time_limit():
    other = InstructedTask(task=Task(skill=Skill.PICK, object='blue cup', arm='left'), instruction='take the blue cup')
    checker, placed = SuccessChecker([PLACE, other], table(0)), {'red_cube': (-0.1, 0.78, 0.024)}
    assert checker.current_task is PLACE
    checker.update(table(20.0, **placed))
    assert checker.update(table(20.5, **placed)).state is EpisodeState.NEXT_INSTRUCTION
    assert checker.current_task is other
    assert checker.update(table(20.5 + TIME_LIMITS_S[Skill.PICK] - 0.1, **placed)).state is EpisodeState.RUNNING
    checker.update(table(21.0, blue_cup=HELD, **placed))
    assert checker.update(table(21.5, blue_cup=HELD, **placed)).state is EpisodeState.SUCCESS


@pytest.mark.parametrize('place', [(-0.1, 0.78, 0.024), TABLE['red cube']])
def test_what_lies_on_the_table_is_not_picked(place):
    checker = SuccessChecker([PICK], table(0))
    assert all(checker.update(table(second, red_cube=place)).state is EpisodeState.RUNNING for second in range(1, 10))


def hands(seconds, left, right=(0.4, 0.9, 0.3), **objects):
    """Return the ground truth after a time with hands at these points."""
    return replace(table(seconds, **objects), arms={'left': hand_at(left), 'right': hand_at(right)})


def test_the_object_that_a_hand_came_nearest_to_is_the_one_approached():
    checker = SuccessChecker([PICK], hands(0, (-0.4, 0.9, 0.3)))
    assert checker.nearest_object == '', 'nothing has been seen yet'
    checker.update(hands(1.0, (-0.1, 0.4, 0.10)))
    assert checker.nearest_object == 'red cube'
    checker.update(hands(2.0, (0.19, 0.4, 0.06)))
    assert checker.nearest_object == 'blue cup'
    checker.update(hands(3.0, (-0.4, 0.9, 0.3)))
    assert checker.nearest_object == 'blue cup', 'what came later was farther off'
    checker.update(hands(4.0, (-0.2, 0.4, 0.03)))
    assert checker.nearest_object == 'red cube'


def test_either_hand_approaches_and_it_is_the_fingers_that_count():
    checker = SuccessChecker([PICK], hands(0, (-0.4, 0.9, 0.3)))
    checker.update(hands(1.0, (-0.2, 0.4, 0.12), right=(0.2, 0.4, 0.10)))
    assert checker.nearest_object == 'blue cup'
    # The wrist of this hand is over the red cube, its fingers are at the blue cup.
    along = make_pose(np.eye(3), (0.2 - EE_FROM_TOOL_CENTRE[0], 0.4, 0.04))
    between = {'red_cube': (0.2 - EE_FROM_TOOL_CENTRE[0], 0.4, 0.07), 'blue_cup': (0.2, 0.4, 0.02)}
    scene = replace(table(1.0, **between), arms={'left': ArmState(world_from_ee=along, gripper=0.5)})
    checker = SuccessChecker([PICK], scene)
    checker.update(scene)
    assert checker.nearest_object == 'blue cup'


def test_an_object_is_approached_where_it_is_by_then():
    checker = SuccessChecker([PICK], hands(0, (-0.4, 0.9, 0.3)))
    checker.update(hands(1.0, (0.3, 0.6, 0.06), blue_cup=(0.3, 0.6, 0.02)))
    assert checker.nearest_object == 'blue cup'


def test_what_is_approached_for_the_second_instruction_does_not_count():
    other = InstructedTask(task=Task(skill=Skill.PICK, object='blue cup', arm='left'), instruction='take the blue cup')
    checker = SuccessChecker([PICK, other], hands(0, (-0.4, 0.9, 0.3)))
    above = (HELD[0], HELD[1] + 0.03, HELD[2])
    checker.update(hands(1.0, above, red_cube=HELD))
    assert checker.update(hands(1.5, above, red_cube=HELD)).state is EpisodeState.NEXT_INSTRUCTION
    checker.update(hands(2.0, TABLE['blue cup']))
    assert checker.nearest_object == 'red cube'
