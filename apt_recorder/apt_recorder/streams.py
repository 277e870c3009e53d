"""Which streams of a robot's table a recording holds.

Who publishes them, and how well, is not known here.
"""

from collections.abc import Sequence

from apt_policy.core.contract import RobotContract
from apt_policy.core.errors import UserError
from apt_policy.core.stream_spec import StreamSpec
from apt_policy.core.stream_table import StreamTable


class SelectionError(UserError, ValueError):
    """A stream to leave out that does not exist; the message lists those that do."""


def streams_of(contract: RobotContract, *, without: Sequence[str] = ()) -> tuple[StreamSpec, ...]:
    """Every stream of a robot that is recorded, a simulated clock among them.

    Args:
        without: labels of streams to leave out; a camera's or arm's name leaves out all of its streams.

    Raises:
        SelectionError: ``without`` names what is not there.
    """
    everything = [spec for spec in StreamTable(contract) if spec.need.recorder is not None]
    known = {name for spec in everything for name in _names(spec)}
    if unknown := sorted(set(without) - known):
        raise SelectionError(f'no stream {", ".join(map(repr, unknown))} to leave out; '
                             f'there are {", ".join(sorted(known))}')
    return tuple(spec for spec in everything if not set(_names(spec)) & set(without))


def _names(spec: StreamSpec) -> tuple[str, ...]:
    return spec.label, spec.name or spec.label
