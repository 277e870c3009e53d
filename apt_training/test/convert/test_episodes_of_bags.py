"""Where episodes begin and end, and which are left out."""

from dataclasses import replace

import pytest

from apt_policy.core import topics
from apt_training.convert.rosbag.intervals import Change, Intervals, decided
from apt_training.convert.rosbag.settings import Split
from apt_training.convert.source import Refusal


@pytest.fixture
def marked(robot):
    """A recording with marks at times."""
    def make(seconds, *marks, **recorded):
        return robot.in_order([*robot.messages(seconds, **recorded),
                               *(robot.word(topics.EPISODE, time_s, text) for time_s, text in marks)])
    return make


def spans(robot, found):
    return [(round(frames[0].stamp_s - robot.start_ns / 1e9, 3), len(frames)) for _, frames in found]


def test_marks_make_the_episodes_and_what_is_discarded_is_left_out(marked, robot, write_bag, unit, episodes_of,
                                                                   tmp_path):
    messages = marked(4.0, (0.505, 'begin'), (1.505, 'end'), (1.8, 'begin'), (2.4, 'discard'), (2.605, 'begin'),
                      (3.305, 'end'))
    first, discarded, last = episodes_of(unit(write_bag(tmp_path / 'bag', messages)))
    assert spans(robot, [first, last]) == [(0.505, 10), (2.605, 7)]
    assert discarded.kind is Refusal.DISCARDED and 'episode 1: discarded at 2.400 s' in str(discarded)


def test_an_episode_that_does_not_end_is_left_out_and_both_reasons_are_named(marked, robot, write_bag, unit,
                                                                             episodes_of, tmp_path):
    messages = marked(3.0, (0.505, 'begin'), (1.005, 'begin'), (1.505, 'end'), (2.0, 'begin'))
    abandoned, whole, open_ = episodes_of(unit(write_bag(tmp_path / 'bag', messages)))
    assert abandoned.kind is open_.kind is Refusal.UNFINISHED
    assert 'another one begins at 1.005 s before its end is marked' in str(abandoned)
    assert 'it began at 2.000 s; the recording ends before its end is marked' in str(open_)
    assert spans(robot, [whole]) == [(1.005, 5)]


def test_marks_that_mean_nothing_are_noted(marked, write_bag, unit, episodes_of, tmp_path):
    messages = marked(2.0, (0.2, 'end'), (0.5, 'begin'), (0.7, 'hello'), (1.5, 'end'))
    work = unit(write_bag(tmp_path / 'bag', messages))
    assert len(episodes_of(work)) == 1
    notes = '\n'.join(work.report().notes)
    assert "episode marks: 2 messages ignored, first at 0.200 s: mark 'end', but no episode is open" in notes


def test_prompt_changes_make_the_episodes_where_there_are_no_marks(robot, write_bag, unit, episodes_of, tmp_path):
    messages = robot.in_order([*robot.messages(3.0, prompt=None), *(
        robot.word(robot.contract.prompt_topic, time_s, text) for time_s, text in
        [(0.505, 'pick'), (0.7, 'pick'), (1.505, 'place'), (2.005, ''), (2.405, 'pick')])])
    found = episodes_of(unit(write_bag(tmp_path / 'bag', messages)))
    assert spans(robot, found) == [(0.505, 10), (1.505, 5), (2.405, 6)]
    assert [facts.prompts for facts, _ in found] == [('pick',), ('place',), ('pick',)]


def test_marks_of_which_none_was_given_leave_a_bag_without_episodes_and_say_so(robot, write_bag, unit, episodes_of,
                                                                              tmp_path):
    work = unit(write_bag(tmp_path / 'bag', robot.messages(1.0)), split=Split.MARKS)
    assert episodes_of(work) == []
    assert any('no episode: nothing was marked; --split-by bag' in note for note in work.report().notes)


def test_a_bag_is_one_episode_where_nothing_says_otherwise(robot, write_bag, unit, episodes_of, tmp_path):
    found = episodes_of(unit(write_bag(tmp_path / 'bag', robot.messages(1.0, prompt=None))))
    assert spans(robot, found) == [(0.1, 9)]


def test_the_same_episode_comes_out_whatever_is_asked_of_the_others(marked, write_bag, unit, tmp_path):
    work = unit(write_bag(tmp_path / 'bag', marked(3.0, (0.5, 'begin'), (1.2, 'end'), (1.5, 'begin'), (2.5, 'end'))))

    def last(done):
        *_, episode = ((one.index, [frame.stamp_s for frame in one.frames()], one.facts.source_hash)
                       for one in work.episodes(done, lambda share, frames: None))
        return episode

    assert last(lambda index: False) == last(lambda index: index == 0)


def test_a_jump_of_the_recordings_clock_ends_the_episode(robot, write_bag, unit, episodes_of, tmp_path):
    second = [replace(one, receive_ns=one.receive_ns + 3_600_000_000_000,
                      content=robot.restamped(one.content, lambda at: at + 3_600_000_000_000)
                      if hasattr(one.content, 'header') or hasattr(one.content, 'transforms') else one.content)
              for one in robot.messages(1.0)]
    lost, whole = episodes_of(unit(write_bag(tmp_path / 'bag', [*robot.messages(1.0), *second]), split=Split.BAG))
    assert lost.kind is Refusal.CLOCK_JUMP and 'jumped to 3600.000 s' in str(lost)
    assert spans(robot, [whole]) == [(3600.1, 9)]


@pytest.mark.parametrize(('asked', 'marks', 'prompts', 'split'), [
    (Split.AUTO, True, True, Split.MARKS), (Split.AUTO, False, True, Split.PROMPT),
    (Split.AUTO, False, False, Split.BAG), (Split.BAG, True, True, Split.BAG)])
def test_auto_is_decided_by_what_there_is(asked, marks, prompts, split):
    assert decided(asked, marks=marks, prompts=prompts) is split


def test_the_end_of_an_episode_is_heard_once():
    intervals = Intervals(Split.MARKS)
    assert intervals.hear_mark('begin').changes == (Change.BEGIN,)
    assert intervals.hear_mark('end').changes == (Change.END,)
    assert intervals.hear_mark('end').complaint
