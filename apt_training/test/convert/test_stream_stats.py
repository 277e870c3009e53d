"""Counts of dropped frames."""

import pytest

from apt_policy.core.sample import Hold, HoldReason
from apt_training.convert.rosbag.stream_stats import DropCounter


@pytest.mark.parametrize('detail', ['top: 0.3 s old', 'the stamps jumped back; none', 'cam_high: old', ''])
def test_a_lost_frame_counts_for_the_stream_of_its_hold_however_the_hold_is_worded(detail):
    drops = DropCounter()
    drops.record(Hold(reason=HoldReason.STALE_STREAM, detail=detail, stream='top'), 1.0)
    assert drops.by_reason() == {'top: stale_stream': 1} and drops.count_of_stream('top') == 1
    assert drops.describe() == f'top stale_stream 1 times, first at 1.000 s: {detail}'


def test_a_lost_frame_without_a_stream_is_counted_all_the_same():
    drops = DropCounter()
    drops.record(Hold(reason=HoldReason.NON_FINITE, detail='left: bad'), 1.0)
    assert drops.total == 1 and drops.by_reason() == {'no stream: non_finite': 1} and drops.count_of_stream('left') == 0
