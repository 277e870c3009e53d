"""Selection of the streams to record from the stream table of a robot."""

from collections.abc import Sequence

from apt_policy.core.contract import RobotContract
from apt_policy.core.errors import UserError
from apt_policy.core.stream_spec import StreamSpec
from apt_policy.core.stream_table import StreamTable


class SelectionError(UserError, ValueError):
    """Error of a stream to leave out that does not exist."""


def recorded_streams(contract: RobotContract, *, without: Sequence[str] = ()) -> tuple[StreamSpec, ...]:
    """Return the streams of a robot to record, a simulated clock included.

    Args:
        contract: the robot.
        without: labels of streams to leave out; the name of a camera or arm leaves out all of its streams.

    Raises:
        SelectionError: ``without`` names an unknown stream.
    """
    recorded = [spec for spec in StreamTable(contract) if spec.need.recorder is not None]
    known = {name for spec in recorded for name in _names(spec)}
    if unknown := sorted(set(without) - known):
        raise SelectionError(f'cannot leave out {", ".join(map(repr, unknown))}: no such stream; choose from '
                             f'{", ".join(sorted(known))}')
    return tuple(spec for spec in recorded if not set(_names(spec)) & set(without))


def _names(spec: StreamSpec) -> tuple[str, ...]:
    return spec.label, spec.name or spec.label
