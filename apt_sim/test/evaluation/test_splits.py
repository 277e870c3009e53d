"""What is tested was never taught."""

import itertools

import pytest

from apt_sim.evaluation.splits import (
    HELD_OUT_OBJECTS,
    HELD_OUT_TRAYS,
    TAUGHT_OBJECTS,
    TESTS,
    Split,
    SplitError,
    allows,
    skills_named,
    skills_of,
    split_named,
    wordings,
)
from apt_sim.tasks import language
from apt_sim.tasks.task import Side, Skill, Task
from apt_sim.world.things import ALL_OBJECTS, TRAY_COLOURS, thing


def every_task():
    for name, arm, said in itertools.product(ALL_OBJECTS, ('left', 'right'), (True, False)):
        yield Task(skill=Skill.PICK, object=name, arm=arm, arm_named=said)
        yield from (Task(skill=Skill.PLACE, object=name, arm=arm, arm_named=said, tray=tray) for tray in TRAY_COLOURS)
        yield from (Task(skill=Skill.PUSH, object=name, arm=arm, arm_named=said, side=side) for side in Side)
        yield Task(skill=Skill.HAND_OVER, object=name, arm=arm, arm_named=said, receiver='left')


def sentences(split):
    return {language.phrase(task, number) for task in every_task() if allows(split, task)
            for number in wordings(split, task)}


TAUGHT = sentences(Split.TRAIN)


def test_the_seen_split_asks_for_nothing_new():
    assert sentences(Split.SEEN) == TAUGHT
    assert sentences(Split.COMPOSED) == TAUGHT


@pytest.mark.parametrize('split', [Split.UNSEEN_OBJECT, Split.UNSEEN_CONTAINER, Split.UNSEEN_WORDING])
def test_no_instruction_of_an_unseen_split_is_taught(split):
    assert sentences(split)
    assert not sentences(split) & TAUGHT


def test_an_unseen_split_leaves_the_taught_in_one_respect_only():
    for task in every_task():
        if allows(Split.UNSEEN_OBJECT, task):
            assert task.object in HELD_OUT_OBJECTS and task.tray not in HELD_OUT_TRAYS
        if allows(Split.UNSEEN_CONTAINER, task):
            assert task.object in TAUGHT_OBJECTS and task.tray in HELD_OUT_TRAYS
        assert allows(Split.UNSEEN_WORDING, task) == allows(Split.TRAIN, task)


def test_no_training_instruction_names_a_held_out_pair_or_tray():
    for sentence in TAUGHT:
        assert not any(f'the {name}' in sentence for name in HELD_OUT_OBJECTS)
        assert not any(f'the {colour} tray' in sentence for colour in HELD_OUT_TRAYS)


def test_every_colour_and_every_shape_is_taught():
    taught, existing = [[thing(name) for name in names] for names in (TAUGHT_OBJECTS, ALL_OBJECTS)]
    assert {t.colour for t in taught} == {t.colour for t in existing}
    assert {t.shape for t in taught} == {t.shape for t in existing}
    assert len(HELD_OUT_OBJECTS) == len(ALL_OBJECTS) - len(TAUGHT_OBJECTS) == 9
    assert HELD_OUT_TRAYS == ('blue',)


def test_every_split_has_a_way_to_be_named():
    assert [split_named(split.value) for split in Split] == list(Split)
    assert split_named('unseen-object') is Split.UNSEEN_OBJECT
    assert Split.TRAIN not in TESTS and len(TESTS) == 5
    assert skills_named('pick, hand-over,pick') == (Skill.PICK, Skill.HAND_OVER)


def test_a_wrong_name_is_answered_with_the_right_ones():
    with pytest.raises(SplitError, match=r"no split 'unsen_object'; did you mean 'unseen_object'\? there are train"):
        split_named('unsen_object')
    with pytest.raises(SplitError, match=r"no skill 'stack'; there are pick, place, hand_over, push"):
        skills_named('pick,stack')


def test_splits_that_need_a_tray_say_so():
    with pytest.raises(SplitError, match='unseen_container needs the skill place; got pick'):
        skills_of(Split.UNSEEN_CONTAINER, (Skill.PICK,))
    assert skills_of(Split.COMPOSED, (Skill.PICK, Skill.PLACE)) == (Skill.PLACE,)
