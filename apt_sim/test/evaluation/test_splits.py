"""Test splits hold out objects, trays and wordings of training."""

import itertools

import pytest

from apt_sim.evaluation.splits import (
    HELD_OUT_OBJECTS,
    HELD_OUT_TRAYS,
    TEST_SPLITS,
    TRAIN_OBJECTS,
    InstructionSplit,
    SplitError,
    first_skills,
    is_in_split,
    parse_skills,
    parse_split,
    split_wordings,
)
from apt_sim.tasks import language
from apt_sim.tasks.task import Side, Skill, Task
from apt_sim.world.objects import ALL_OBJECTS, TRAY_COLOURS, object_spec


def every_task():
    for name, arm, said in itertools.product(ALL_OBJECTS, ('left', 'right'), (True, False)):
        yield Task(skill=Skill.PICK, object=name, arm=arm, arm_named=said)
        yield from (Task(skill=Skill.PLACE, object=name, arm=arm, arm_named=said, tray=tray) for tray in TRAY_COLOURS)
        yield from (Task(skill=Skill.PUSH, object=name, arm=arm, arm_named=said, side=side) for side in Side)
        yield Task(skill=Skill.HAND_OVER, object=name, arm=arm, arm_named=said, receiver='left')


def sentences(split):
    return {language.format_instruction(task, number) for task in every_task() if is_in_split(split, task)
            for number in split_wordings(split, task)}


TAUGHT = sentences(InstructionSplit.TRAIN)


def test_the_seen_split_asks_for_nothing_new():
    assert sentences(InstructionSplit.SEEN) == TAUGHT
    assert sentences(InstructionSplit.COMPOSED) == TAUGHT


@pytest.mark.parametrize('split',
                         [InstructionSplit.UNSEEN_OBJECT, InstructionSplit.UNSEEN_CONTAINER,
                          InstructionSplit.UNSEEN_WORDING])
def test_no_instruction_of_an_unseen_split_is_in_training(split):
    assert sentences(split)
    assert not sentences(split) & TAUGHT


def test_an_unseen_split_differs_from_training_in_one_respect_only():
    for task in every_task():
        if is_in_split(InstructionSplit.UNSEEN_OBJECT, task):
            assert task.object in HELD_OUT_OBJECTS and task.tray not in HELD_OUT_TRAYS
        if is_in_split(InstructionSplit.UNSEEN_CONTAINER, task):
            assert task.object in TRAIN_OBJECTS and task.tray in HELD_OUT_TRAYS
        assert is_in_split(InstructionSplit.UNSEEN_WORDING, task) == is_in_split(InstructionSplit.TRAIN, task)


def test_no_training_instruction_names_a_held_out_pair_or_tray():
    for sentence in TAUGHT:
        assert not any(f'the {name}' in sentence for name in HELD_OUT_OBJECTS)
        assert not any(f'the {colour} tray' in sentence for colour in HELD_OUT_TRAYS)


def test_every_colour_and_every_shape_is_in_training():
    taught, existing = [[object_spec(name) for name in names] for names in (TRAIN_OBJECTS, ALL_OBJECTS)]
    assert {t.colour for t in taught} == {t.colour for t in existing}
    assert {t.shape for t in taught} == {t.shape for t in existing}
    assert len(HELD_OUT_OBJECTS) == len(ALL_OBJECTS) - len(TRAIN_OBJECTS) == 9
    assert HELD_OUT_TRAYS == ('blue',)


def test_every_split_has_a_way_to_be_named():
    assert [parse_split(split.value) for split in InstructionSplit] == list(InstructionSplit)
    assert parse_split('unseen-object') is InstructionSplit.UNSEEN_OBJECT
    assert InstructionSplit.TRAIN not in TEST_SPLITS and len(TEST_SPLITS) == 5
    assert parse_skills('pick, hand-over,pick') == (Skill.PICK, Skill.HAND_OVER)


def test_a_wrong_name_is_answered_with_the_right_ones():
    said = r"there is no split 'unsen_object'; did you mean unseen_object\? Expected one of train"
    with pytest.raises(SplitError, match=said):
        parse_split('unsen_object')
    with pytest.raises(SplitError, match=r"there is no skill 'stack'; expected one of pick, place, hand_over, push"):
        parse_skills('pick,stack')


def test_splits_that_need_a_tray_say_so():
    with pytest.raises(SplitError, match='skills is pick; the split unseen_container requires place'):
        first_skills(InstructionSplit.UNSEEN_CONTAINER, (Skill.PICK,))
    assert first_skills(InstructionSplit.COMPOSED, (Skill.PICK, Skill.PLACE)) == (Skill.PLACE,)
