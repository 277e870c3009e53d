"""What the converter asks of a source of episodes: recordings of the robot, or datasets of others.

A source is cut into units, each of which one process converts alone: a bag, or some episodes
of a dataset. A unit is a value that crosses process borders; it opens files only when asked
for its episodes. How episodes become files is known to ``write_unit``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from apt_policy.core.contract import RobotContract
from apt_policy.core.errors import UserError
from apt_training.convert.arguments import ConvertArguments
from apt_training.episodes.episode import EpisodeFacts, Frame

CONVERTER_VERSION = 'apt-convert 1'
"""Goes into every file; changes whenever the same input would give other bytes."""
_LONGEST = 200
"""Characters: parsers quote all of what they could not parse."""


class ConvertError(UserError, ValueError):
    """Input that cannot be converted; the message names file, stream and time, and what to do."""


def one_line(error: object) -> str:
    """What an error of a library says, on one line and not longer than a person reads."""
    text = ' '.join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f'{text[:_LONGEST - 3]}...'


class Refusal(Enum):
    """Why an episode is left out."""

    DISCARDED = 'discarded'
    """Its operator said so."""
    UNFINISHED = 'unfinished'
    """The recording ends before it does."""
    DROPS = 'too many drops'
    EMPTY = 'no frames'
    CLOCK_JUMP = 'clock jump'
    DAMAGED = 'damaged'
    """Something of it is missing or cannot be read."""


class RefusedError(Exception):
    """Raised while the frames of an episode are taken: it is to be left out, the next one may be fine."""

    def __init__(self, kind: Refusal, detail: str) -> None:
        """``detail`` names file, stream and time."""
        super().__init__(detail)
        self.kind, self.detail = kind, detail


@dataclass(frozen=True, kw_only=True)
class StreamLine:
    """How one stream did over a whole unit."""

    stream: str
    messages: int
    rate_hz: float
    gaps: int
    """Times that it was silent for more than 2.5 of its usual periods."""
    longest_gap_s: float
    age_p50_s: float
    """Of what was newest at the frames; NaN where there were none."""
    age_p95_s: float
    drops: int
    """Frames lost for its sake."""
    frozen: int
    """Images equal to the one before, byte by byte; 0 for other streams."""
    time_base: str
    """``header``, ``receive`` or empty."""


@dataclass(frozen=True, kw_only=True)
class UnitReport:
    """What is said about a unit when all of it was read."""

    streams: tuple[StreamLine, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences: what was chosen, what was odd; each names stream and time where there is one."""
    damage: str = ''
    """Where the input broke off, with file and offset; its whole episodes are good all the same."""
    details: dict[str, int] = field(default_factory=dict)
    """Dropped frames by ``stream: reason``."""
    read_by: str = ''
    """Libraries that read the input, where there is a choice."""


class EpisodeStream(Protocol):
    """One episode, to be taken from front to back before the next one is asked for."""

    index: int
    """Within its unit, from 0; counts refused episodes too, so that names do not depend on what is refused."""

    @property
    def facts(self) -> EpisodeFacts:
        """Arms, cameras and rate from the start on; the rest is final once the frames are exhausted."""

    def frames(self) -> Iterator[Frame]:
        """Every frame, oldest first.

        Raises:
            RefusedError: at any point: the episode is to be left out.
        """


class Unit(Protocol):
    """What one process converts."""

    name: str
    """Files are called after it: letters, digits, ``-``, ``_`` and ``.``."""
    path: str
    """Where it is, for people."""

    def identity(self) -> str:
        """Changes with the input and with every setting that changes the output; cheap."""

    def episodes(self, done: Callable[[int], bool], progress: Callable[[float, int], None]
                 ) -> Iterator[EpisodeStream]:
        """Open the unit and go through it.

        Args:
            done: whether the episode of an index is there already; such ones need not be yielded.
            progress: to be told now and then which share of the unit was read and how many frames came out.

        Raises:
            ConvertError: nothing, or nothing more, can be had of it.
        """

    def report(self) -> UnitReport:
        """What there is to say after the last episode."""


class Source(Protocol):
    """A kind of input, as a module: ``rosbag.source`` and ``lerobot.source``, chosen with ``--from``."""

    def units(self, arguments: ConvertArguments, contract: RobotContract) -> Sequence[Unit]:
        """Cut ``arguments.inputs`` (paths) into units, in a fixed order, with names that differ.

        Raises:
            ConvertError: an input that is not there or not of this kind, or a flag that does not fit the contract.
        """
