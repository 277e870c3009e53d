"""Where episodes begin and end."""

import pytest

from apt_policy.core.topics import EpisodeMark
from apt_recorder.marks import Marker

BEGIN, END, DISCARD = EpisodeMark.BEGIN, EpisodeMark.END, EpisodeMark.DISCARD


def publish(marker, marks):
    """What the recorder does with an answer: everybody hears it, the marker too."""
    assert [marker.heard(mark.value) for mark in marks] == [''] * len(marks)
    return marks


def test_space_begins_and_ends_d_discards():
    marker = Marker()
    assert publish(marker, marker.key(' ')) == (BEGIN,)
    assert publish(marker, marker.key(' ')) == (END,)
    assert publish(marker, marker.key(' ')) == (BEGIN,)
    assert publish(marker, marker.key('d')) == (DISCARD,)
    assert (marker.open, marker.episodes, marker.discarded) == (False, 1, 1)


def test_keys_that_come_before_their_marks_are_heard_mean_what_they_should():
    marker = Marker()
    marks = [mark for key in ' x  d' for mark in marker.key(key)]
    assert marks == [BEGIN, END, BEGIN, DISCARD] and not marker.settled
    publish(marker, marks)
    assert marker.settled and (marker.episodes, marker.discarded) == (1, 1)


def test_other_keys_and_a_discard_of_nothing_mark_nothing():
    marker = Marker()
    assert marker.key('d') == marker.key('x') == ()


def test_each_new_instruction_is_an_episode_if_wanted():
    marker = Marker(per_prompt=True)
    assert publish(marker, marker.prompt('pick')) == (BEGIN,)
    assert marker.prompt('pick') == ()
    assert publish(marker, marker.prompt('place')) == (END, BEGIN)
    assert publish(marker, marker.prompt('')) == (END,)
    assert Marker().prompt('pick') == ()


def test_the_end_of_the_recording_ends_an_episode_of_its_own_but_not_that_of_others():
    own, other = Marker(), Marker()
    publish(own, own.key(' '))
    assert own.at_the_end() == (END,)
    other.heard('begin')
    assert other.open and other.at_the_end() == ()


@pytest.mark.parametrize(('heard', 'complaint'), [
    (['begin', 'begin'], 'an episode is open already'),
    (['end'], 'no episode is open'),
    (['discard'], 'no episode is open'),
    (['start'], "'start' is no episode mark; there are begin, end, discard")])
def test_marks_that_make_no_sense_are_told(heard, complaint):
    marker = Marker()
    assert complaint in [marker.heard(mark) for mark in heard][-1]
