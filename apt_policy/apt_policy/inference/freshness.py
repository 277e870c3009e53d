"""Whether every stream is recent enough to go on moving; between observations, without decoding any."""

from collections.abc import Iterable

from apt_policy.core.sample import Hold, HoldReason
from apt_policy.core.streams import StreamReport


def overdue(reports: Iterable[StreamReport]) -> Hold | None:
    """The first stream that never came or is too old to act upon, None if all are recent."""
    for report in reports:
        if report.age_s < 0:
            return Hold(reason=HoldReason.MISSING_STREAM, detail=f'nothing came from {report.stream} yet',
                        stream=report.stream)
        if report.age_s > report.max_age_s:
            return Hold(reason=HoldReason.STALE_STREAM, stream=report.stream,
                        detail=f'{report.stream} is {report.age_s:.3f} s old (limit {report.max_age_s:g} s)')
    return None
