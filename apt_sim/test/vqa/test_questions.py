"""Answers about a known scene."""

import re

import numpy as np
import pytest

from apt_sim.tasks.language import NOUNS, format_instruction, wording_count
from apt_sim.tasks.task import Side, Skill, Task
from apt_sim.vqa.annotations import SceneAnnotations
from apt_sim.vqa.questions import NOWHERE, describe_table, sample_questions
from apt_sim.world.objects import ALL_OBJECTS

ANNOTATIONS = SceneAnnotations(
    objects={'red cube': (3, 7), 'red bar': (20, 4), 'blue cup': (11, 15), 'green cube': (11, 9),
             'orange bar': (30, 2)},
    trays={'white': (9, 25), 'blue': (25, 26)}, held={'right': 'orange bar'},
    nearer_arm={'red cube': 'left', 'red bar': 'right', 'blue cup': 'left', 'green cube': 'left',
                'orange bar': 'right'},
    image_cells={'cam_high': {'red cube': (1, 2), 'blue cup': (4, 4), 'green cube': (4, 6)},
                 'cam_left_wrist': {'red cube': (7, 0)}},
    image_points={'cam_high': {}, 'cam_left_wrist': {}}, camera_positions={'cam_high': {}, 'cam_left_wrist': {}})
# All names of objects and of trays.
OBJECTS = {f'{name.split()[0]} {noun}': name for name in ALL_OBJECTS
           for shape, nouns in NOUNS.items() if shape.value == name.split()[1] for noun in nouns}
TRAYS = {f'{colour} {noun}': colour for colour in ('white', 'black', 'red', 'blue')
         for noun in ('tray', 'container', 'box')}
CALLED = re.compile('|'.join(sorted({*OBJECTS, *TRAYS}, key=len, reverse=True)))
SENTENCES = {format_instruction(task, wording) for name in ALL_OBJECTS for task in (
    Task(skill=Skill.PICK, object=name, arm='left'),
    *(Task(skill=Skill.PLACE, object=name, arm='left', tray=tray) for tray in set(TRAYS.values())),
    *(Task(skill=Skill.HAND_OVER, object=name, arm='left', receiver=hand) for hand in ('left', 'right')),
    *(Task(skill=Skill.PUSH, object=name, arm='left', side=side)
      for side in Side)) for wording in range(wording_count(task))}
ROW_FIRST = ('how far', 'locate', 'show me', 'look for', 'which place')


@pytest.fixture(scope='module')
def pairs():
    random = np.random.default_rng(0)
    return [pair for _ in range(600) for pair in sample_questions(ANNOTATIONS, random, count=5)]


def place_of(called):
    return ANNOTATIONS.trays.get(TRAYS[called]) if called in TRAYS else ANNOTATIONS.objects.get(OBJECTS[called])


def expected(question):
    """Derive the expected answer from the words of the question."""
    called = CALLED.findall(question)
    if question in SENTENCES:
        return f'{OBJECTS[called[0]]} {place_words(place_of(called[0]), row_first=False)}'
    if '"' in question:
        return None if 'meant by' in question else place_words(place_of(called[0]), row_first='how far' in question)
    if match := re.fullmatch(r'what (?:is|stands) at (x\d+) (y\d+)\?', question):
        return next(name for name, (x, y) in ANNOTATIONS.objects.items() if (f'x{x}', f'y{y}') == match.groups())
    if match := re.search(r'picture (\d)', question):
        shown = tuple(ANNOTATIONS.image_cells.values())[int(match[1]) - 1].get(OBJECTS[called[0]])
        return f'u{shown[0]} v{shown[1]}' if shown else NOWHERE
    if 'left or right' in question:
        (first, _), (second, _) = (place_of(name) for name in called)
        assert first != second, 'neither is true of what stands in one column'
        return 'left' if first < second else 'right'
    if 'hand is nearer' in question or 'who should' in question:
        return ANNOTATIONS.nearer_arm[OBJECTS[called[0]]]
    if match := re.fullmatch(r'what does the (\w+) hand hold\?', question):
        return ANNOTATIONS.held.get(match[1], 'nothing')
    if match := re.fullmatch(r'what is (\w+)\?', question):
        names = sorted((name for name in ANNOTATIONS.objects if name.startswith(match[1])),
                       key=lambda n: ANNOTATIONS.objects[n])
        return ', '.join(names) or 'nothing'
    if question == 'describe the table':
        return describe_table(ANNOTATIONS)
    said_last = 'how far is it' in question
    return place_words(place_of(called[0]), row_first=question.startswith(ROW_FIRST) or said_last)


def place_words(where, *, row_first):
    if where is None:
        return NOWHERE
    words = [f'x{where[0]}', f'y{where[1]}']
    return ' '.join(reversed(words) if row_first else words)


def test_every_answer_is_what_the_scene_says(pairs):
    kinds = set()
    for pair in pairs:
        answer = expected(pair.question)
        if answer is not None:
            assert pair.answer == answer, pair.question
        kinds.add(re.sub(r'".*"', '"s"', CALLED.sub('n', re.sub(r'\b[xy]?\d+', '0', pair.question))))
    assert len(kinds) > 30, 'not all kinds of questions were asked'


def test_what_is_not_there_is_nowhere(pairs):
    missing = [pair for pair in pairs if pair.answer == NOWHERE and 'picture' not in pair.question]
    named = {CALLED.search(pair.question)[0] for pair in missing}
    assert len(named) > 15 and all(place_of(called) is None for called in named)


def test_a_sentence_for_the_robot_is_explained_by_what_it_asks_for(pairs):
    meanings = [pair for pair in pairs if 'meant by' in pair.question]
    starts = set()
    for pair in meanings:
        said = re.search('"(.*)"', pair.question)[1]
        called = CALLED.findall(said)
        name, rest = OBJECTS[called[0]], said.replace(called[0], '')
        assert name in pair.answer
        if called[1:]:
            assert pair.answer == f'{name} into {TRAYS[called[1]]} tray'
        elif hand := re.search(r'(left|right) (arm|hand|gripper)', rest):
            assert pair.answer == f'{name} to {hand[1]} hand'
        elif side := re.search(r'left|right', rest):
            assert pair.answer == f'{name} {side[0]}'
        else:
            assert pair.answer == f'lift {name}'
        starts.add(pair.answer.replace(name, 'n').split()[-1])
    assert starts == {'n', 'tray', 'hand', 'left', 'right'}


def test_instructions_are_bare_or_quoted_in_a_question(pairs):
    plain = {pair.question for pair in pairs if '"' not in pair.question}
    asked = {re.sub('".*"', '"s"', pair.question) for pair in pairs if '"' in pair.question}
    assert asked == {'what is meant by "s"?', 'what would you touch to "s"?', 'how far must you reach to "s"?'}
    assert len(plain & SENTENCES) > 200
    assert not any(sentence in question for question in plain - SENTENCES for sentence in SENTENCES)


def test_the_subject_of_a_question_is_the_first_object_that_it_names_if_it_is_on_the_table(pairs):
    there = {*ANNOTATIONS.objects, *(f'{colour} tray' for colour in ANNOTATIONS.trays)}
    for pair in pairs:
        called = [OBJECTS.get(name) or f'{TRAYS[name]} tray' for name in CALLED.findall(pair.question)]
        about_one = called and 'left or right' not in pair.question
        assert pair.subject == (called[0] if about_one and called[0] in there else ''), pair.question


def test_every_wording_of_lifting_is_explained_held_out_ones_too(pairs):
    heard = {CALLED.sub('n', re.search('"(.*)"', pair.question)[1]) for pair in pairs if pair.answer.startswith('lift')}
    lift = Task(skill=Skill.PICK, object='red cube', arm='left')
    assert heard == {CALLED.sub('n', format_instruction(lift, wording)) for wording in range(wording_count(lift))}


def test_a_description_lists_everything_from_left_to_right():
    words = describe_table(ANNOTATIONS)
    assert words == ('red cube x3 y7, green cube x11 y9, blue cup x11 y15, red bar x20 y4, orange bar x30 y2, '
                     'white tray x9 y25, blue tray x25 y26')


def test_questions_of_a_conversation_differ_and_the_description_comes_last():
    for seed in range(20):
        asked = [pair.question for pair in sample_questions(ANNOTATIONS, np.random.default_rng(seed), count=9)]
        assert len(set(asked)) == len(asked) == 10 and asked[-1] == 'describe the table'


def test_the_same_chance_asks_the_same():
    first, again, other = (sample_questions(ANNOTATIONS, np.random.default_rng(seed), count=5) for seed in (3, 3, 4))
    assert first == again != other
