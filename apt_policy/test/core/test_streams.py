"""As-of look-ups, ages, rates and what becomes of odd stamps."""

import numpy as np
import pytest

from apt_policy.core.streams import JUMP_NS, Arrival, Stream

MS = 1_000_000


@pytest.fixture
def stream() -> Stream[str]:
    """Three values, a second apart from the epoch: 1000, 1010, 1020 ms."""
    stream: Stream[str] = Stream(3)
    for place, value in enumerate('abc'):
        assert stream.push((1000 + 10 * place) * MS, value) is Arrival.STORED
    return stream


@pytest.mark.parametrize(('tick_ms', 'expected'), [
    (999, ''), (1000, 'a'), (1009, 'a'), (1010, 'ba'), (1020, 'cba'), (5000, 'cba')])
def test_values_until_a_tick_come_newest_first_and_never_from_after_it(tick_ms, expected, stream):
    assert ''.join(entry.value for entry in stream.until(tick_ms * MS)) == expected


@pytest.mark.parametrize(('at_ms', 'before', 'after'), [
    (999, None, 'a'), (1000, 'a', 'b'), (1005, 'a', 'b'), (1020, 'c', None), (2000, 'c', None)])
def test_an_instant_stands_between_its_neighbours(at_ms, before, after, stream):
    found = tuple(entry and entry.value for entry in stream.around(at_ms * MS))
    assert found == (before, after)


def test_only_the_last_values_are_kept(stream):
    stream.push(1030 * MS, 'd')
    assert [entry.value for entry in stream.until(2000 * MS)] == ['d', 'c', 'b']


@pytest.mark.parametrize('stamp_ms', [1020, 1015, 1020 - JUMP_NS // MS])
def test_a_value_that_was_overtaken_is_refused(stamp_ms, stream):
    assert stream.push(stamp_ms * MS, 'late') is Arrival.OUT_OF_ORDER
    assert [entry.value for entry in stream.until(2000 * MS)] == ['c', 'b', 'a']


def test_a_jump_back_forgets_everything_before_and_goes_on_from_there(stream):
    assert stream.push(1019 * MS - JUMP_NS, 'new') is Arrival.CLOCK_JUMP
    assert [entry.value for entry in stream.until(5000 * MS)] == ['new']
    assert stream.push(1030 * MS - JUMP_NS, 'next') is Arrival.STORED


def test_a_stamp_of_zero_is_refused_and_counted(stream):
    assert stream.push(0, 'unstamped') is Arrival.UNSTAMPED
    assert stream.unstamped == 1
    assert stream.newest_ns == 1020 * MS


@pytest.mark.parametrize('rate', [5.0, 30.0, 100.0])
def test_the_rate_is_that_of_the_last_seconds(rate):
    stream: Stream[int] = Stream(4)
    stamps = (np.arange(0, 6, 1 / rate) * 1e9 + 1e9).astype(int)
    for stamp in stamps:
        stream.push(int(stamp), 0)
    assert stream.rate_hz(int(stamps[-1])) == pytest.approx(rate, abs=0.5)


def test_the_rate_is_known_soon_after_the_first_message_and_falls_when_messages_stop():
    stream: Stream[int] = Stream(4)
    for place in range(10):
        stream.push((1000 + 100 * place) * MS, 0)
    assert stream.rate_hz(1900 * MS) == pytest.approx(10.0)
    assert stream.rate_hz(3500 * MS) == pytest.approx(2.0)
    assert stream.rate_hz(9000 * MS) == 0.0
    for place in range(10):
        stream.push((9000 + 100 * place) * MS, 0)
    assert stream.rate_hz(9900 * MS) == pytest.approx(10.0)


def test_a_report_says_whether_age_and_rate_are_as_expected():
    stream: Stream[int] = Stream(4)
    silent = stream.report('cam', 1000 * MS, max_age_s=0.2, expected_hz=10.0)
    assert silent.age_s == -1.0
    assert not silent.ok
    for place in range(30):
        stream.push((1000 + 100 * place) * MS, 0)
    fresh = stream.report('cam', 3950 * MS, max_age_s=0.2, expected_hz=10.0)
    assert fresh.ok
    assert fresh.age_s == pytest.approx(0.05)
    assert fresh.rate_hz == pytest.approx(10.0)
    assert not stream.report('cam', 4150 * MS, max_age_s=0.2, expected_hz=10.0).ok
    assert not stream.report('cam', 3950 * MS, max_age_s=0.2, expected_hz=30.0).ok
