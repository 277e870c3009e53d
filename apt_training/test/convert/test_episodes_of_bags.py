"""Segmentation of bags into episodes."""

from dataclasses import replace

import pytest

from apt_policy.core import topics
from apt_training.convert.rosbag.config import SegmentationMode
from apt_training.convert.rosbag.segmentation import EpisodeSegmenter, SegmentChange, resolve_mode
from apt_training.convert.source import SkipReason


@pytest.fixture
def marked(robot):
    """Return a function that makes a recording with marks at given times."""
    def make(seconds, *marks, **recorded):
        return robot.in_order([*robot.messages(seconds, **recorded),
                               *(robot.word(topics.EPISODE, time_s, text) for time_s, text in marks)])
    return make


def spans(robot, found):
    return [(round(frames[0].stamp_s - robot.start_ns / 1e9, 3), len(frames)) for _, frames in found]


def test_marks_make_the_episodes_and_what_is_discarded_is_left_out(marked, robot, write_bag, job, episodes_of,
                                                                   tmp_path):
    messages = marked(4.0, (0.505, 'begin'), (1.505, 'end'), (1.8, 'begin'), (2.4, 'discard'), (2.605, 'begin'),
                      (3.305, 'end'))
    first, discarded, last = episodes_of(job(write_bag(tmp_path / 'bag', messages)))
    assert spans(robot, [first, last]) == [(0.505, 10), (2.605, 7)]
    assert discarded.kind is SkipReason.DISCARDED and 'episode 1: discarded at 2.400 s' in str(discarded)


def test_an_episode_that_does_not_end_is_left_out_and_both_reasons_are_named(marked, robot, write_bag, job,
                                                                             episodes_of, tmp_path):
    messages = marked(3.0, (0.505, 'begin'), (1.005, 'begin'), (1.505, 'end'), (2.0, 'begin'))
    abandoned, whole, open_ = episodes_of(job(write_bag(tmp_path / 'bag', messages)))
    assert abandoned.kind is open_.kind is SkipReason.UNFINISHED
    assert 'the next episode begins at 1.005 s, but its end was not marked' in str(abandoned)
    assert 'it began at 2.000 s; the recording ends before its end is marked' in str(open_)
    assert spans(robot, [whole]) == [(1.005, 5)]


def test_marks_that_mean_nothing_are_noted(marked, write_bag, job, episodes_of, tmp_path):
    messages = marked(2.0, (0.2, 'end'), (0.5, 'begin'), (0.7, 'hello'), (1.5, 'end'))
    work = job(write_bag(tmp_path / 'bag', messages))
    assert len(episodes_of(work)) == 1
    notes = '\n'.join(work.report().notes)
    assert "episode marks: 2 messages ignored, first at 0.200 s: ignored mark 'end': no episode is open" in notes


def test_prompt_changes_make_the_episodes_where_there_are_no_marks(robot, write_bag, job, episodes_of, tmp_path):
    messages = robot.in_order([*robot.messages(3.0, prompt=None), *(
        robot.word(robot.contract.prompt_topic, time_s, text) for time_s, text in
        [(0.505, 'pick'), (0.7, 'pick'), (1.505, 'place'), (2.005, ''), (2.405, 'pick')])])
    found = episodes_of(job(write_bag(tmp_path / 'bag', messages)))
    assert spans(robot, found) == [(0.505, 10), (1.505, 5), (2.405, 6)]
    assert [facts.prompts for facts, _ in found] == [('pick',), ('place',), ('pick',)]


def test_marks_of_which_none_was_given_leave_a_bag_without_episodes_and_say_so(robot, write_bag, job, episodes_of,
                                                                              tmp_path):
    work = job(write_bag(tmp_path / 'bag', robot.messages(1.0)), split=SegmentationMode.MARKS)
    assert episodes_of(work) == []
    assert any('no episode: the bag has no marks; use --split-by bag' in note for note in work.report().notes)


def test_a_bag_is_one_episode_where_nothing_says_otherwise(robot, write_bag, job, episodes_of, tmp_path):
    found = episodes_of(job(write_bag(tmp_path / 'bag', robot.messages(1.0, prompt=None))))
    assert spans(robot, found) == [(0.1, 9)]


def test_the_same_episode_comes_out_whatever_is_asked_of_the_others(marked, write_bag, job, tmp_path):
    work = job(write_bag(tmp_path / 'bag', marked(3.0, (0.5, 'begin'), (1.2, 'end'), (1.5, 'begin'), (2.5, 'end'))))

    def last(done):
        *_, episode = ((one.index, [frame.stamp_s for frame in one.frames()], one.facts.source_hash)
                       for one in work.episodes(done, lambda share, frames: None))
        return episode

    assert last(lambda index: False) == last(lambda index: index == 0)


def test_a_jump_of_the_recordings_clock_ends_the_episode(robot, write_bag, job, episodes_of, tmp_path):
    second = [replace(one, receive_ns=one.receive_ns + 3_600_000_000_000,
                      content=robot.restamped(one.content, lambda at: at + 3_600_000_000_000)
                      if hasattr(one.content, 'header') or hasattr(one.content, 'transforms') else one.content)
              for one in robot.messages(1.0)]
    path = write_bag(tmp_path / 'bag', [*robot.messages(1.0), *second])
    lost, whole = episodes_of(job(path, split=SegmentationMode.BAG))
    assert lost.kind is SkipReason.CLOCK_JUMP and 'jumped to 3600.000 s' in str(lost)
    assert spans(robot, [whole]) == [(3600.1, 9)]


@pytest.mark.parametrize(('asked', 'marks', 'prompts', 'split'), [
    (SegmentationMode.AUTO, True, True, SegmentationMode.MARKS),
    (SegmentationMode.AUTO, False, True, SegmentationMode.PROMPT),
    (SegmentationMode.AUTO, False, False, SegmentationMode.BAG),
    (SegmentationMode.BAG, True, True, SegmentationMode.BAG)])
def test_auto_is_decided_by_what_there_is(asked, marks, prompts, split):
    assert resolve_mode(asked, marks=marks, prompts=prompts) is split


def test_the_end_of_an_episode_is_heard_once():
    segmenter = EpisodeSegmenter(SegmentationMode.MARKS)
    assert segmenter.on_mark('begin').changes == (SegmentChange.BEGIN,)
    assert segmenter.on_mark('end').changes == (SegmentChange.END,)
    assert segmenter.on_mark('end').problem
