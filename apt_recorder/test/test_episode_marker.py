"""Episode marks from keys, prompts and other nodes."""

import pytest

from apt_policy.core.topics import EpisodeMark
from apt_recorder.episode_marker import EpisodeMarker

BEGIN, END, DISCARD = EpisodeMark.BEGIN, EpisodeMark.END, EpisodeMark.DISCARD


def publish(marker, marks):
    """Publish marks like the recorder: the marker receives them too."""
    assert [marker.on_mark(mark.value) for mark in marks] == [''] * len(marks)
    return marks


def test_space_begins_and_ends_d_discards():
    marker = EpisodeMarker()
    assert publish(marker, marker.on_key(' ')) == (BEGIN,)
    assert publish(marker, marker.on_key(' ')) == (END,)
    assert publish(marker, marker.on_key(' ')) == (BEGIN,)
    assert publish(marker, marker.on_key('d')) == (DISCARD,)
    assert (marker.is_open, marker.episodes, marker.discarded) == (False, 1, 1)


def test_keys_that_come_before_their_marks_are_heard_mean_what_they_should():
    marker = EpisodeMarker()
    marks = [mark for key in ' x  d' for mark in marker.on_key(key)]
    assert marks == [BEGIN, END, BEGIN, DISCARD] and not marker.all_marks_received
    publish(marker, marks)
    assert marker.all_marks_received and (marker.episodes, marker.discarded) == (1, 1)


def test_other_keys_and_a_discard_of_nothing_mark_nothing():
    marker = EpisodeMarker()
    assert marker.on_key('d') == marker.on_key('x') == ()


def test_each_new_instruction_is_an_episode_if_wanted():
    marker = EpisodeMarker(per_prompt=True)
    assert publish(marker, marker.on_prompt('pick')) == (BEGIN,)
    assert marker.on_prompt('pick') == ()
    assert publish(marker, marker.on_prompt('place')) == (END, BEGIN)
    assert publish(marker, marker.on_prompt('')) == (END,)
    assert EpisodeMarker().on_prompt('pick') == ()


def test_the_end_of_the_recording_ends_an_episode_of_its_own_but_not_that_of_others():
    own, other = EpisodeMarker(), EpisodeMarker()
    publish(own, own.on_key(' '))
    assert own.on_recording_end() == (END,)
    other.on_mark('begin')
    assert other.is_open and other.on_recording_end() == ()


@pytest.mark.parametrize(('heard', 'error_text'), [
    (['begin', 'begin'], 'an episode is already open'),
    (['end'], 'no episode is open'),
    (['discard'], 'no episode is open'),
    (['start'], "unknown episode mark 'start', expected one of begin, end, discard")])
def test_invalid_marks_are_reported(heard, error_text):
    marker = EpisodeMarker()
    assert error_text in [marker.on_mark(mark) for mark in heard][-1]
