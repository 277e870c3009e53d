"""Interface between the converter and its sources of episodes: recordings of the robot, or datasets.

A source is divided into jobs, each of which one process converts: a bag, or some episodes of a dataset. A job is
picklable and opens files only when its episodes are read. ``job_runner`` writes the episode files.
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
"""Version in every episode file; it changes when the same input gives other bytes."""
_MAX_CHARACTERS = 200
"""Maximum length of quoted errors: parsers quote all of the text that they could not parse."""


class ConvertError(UserError, ValueError):
    """Error of an input that cannot be converted; the message names file, stream and time, and what to do."""


def one_line(error: object) -> str:
    """Return the text of an error on one line of limited length."""
    text = ' '.join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MAX_CHARACTERS else f'{text[:_MAX_CHARACTERS - 3]}...'


class SkipReason(Enum):
    """Reason to leave an episode out."""

    DISCARDED = 'discarded'
    """The operator discarded it."""
    UNFINISHED = 'unfinished'
    """The recording ends before the episode."""
    DROPS = 'too many drops'
    """More frames are missing than ``max_drops`` allows."""
    EMPTY = 'no frames'
    CLOCK_JUMP = 'clock jump'
    """The clock of the recording jumped within the episode."""
    DAMAGED = 'damaged'
    """Part of the input is missing or unreadable."""


class SkipEpisodeError(Exception):
    """Error that leaves one episode out, raised while its frames are read."""

    def __init__(self, kind: SkipReason, detail: str) -> None:
        """Store the reason.

        Args:
            kind: reason.
            detail: sentence with file, stream and time.
        """
        super().__init__(detail)
        self.kind, self.detail = kind, detail


@dataclass(frozen=True, kw_only=True)
class StreamStats:
    """Statistics of one stream over a whole job."""

    stream: str
    """Name of the stream in reports."""
    messages: int
    """Number of messages."""
    rate_hz: float
    """Mean rate [Hz]."""
    gaps: int
    """Number of intervals longer than 2.5 median periods."""
    longest_gap_s: float
    """Longest interval between two messages [s]."""
    age_p50_s: float
    """Median age of the newest message at the frames [s]; NaN without frames."""
    age_p95_s: float
    """95th percentile of the age [s]; NaN without frames."""
    drops: int
    """Number of frames dropped because of this stream."""
    frozen: int
    """Number of images that equal the one before byte by byte; 0 for other streams."""
    time_base: str
    """``header``, ``receive`` or empty."""


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """Report on the input of a job, complete when all of it was read."""

    streams: tuple[StreamStats, ...] = ()
    """Statistics of each stream."""
    notes: tuple[str, ...] = ()
    """Sentences about automatic choices and unusual messages, with stream and time."""
    damage: str = ''
    """Sentence about unreadable input, with file and offset; empty if all was readable. Complete episodes are valid."""
    details: dict[str, int] = field(default_factory=dict)
    """Number of dropped frames by ``stream: reason``."""
    read_by: str = ''
    """Libraries that read the input; empty where there is no choice."""


class EpisodeStream(Protocol):
    """Episode to be read from front to back before the next one is requested."""

    index: int
    """Index within its job, from 0. Skipped episodes count, so that file names do not depend on them."""

    @property
    def facts(self) -> EpisodeFacts:
        """Facts of the episode: arms, cameras and rate are known at once, the rest after the last frame."""

    def frames(self) -> Iterator[Frame]:
        """Yield the frames, oldest first.

        Raises:
            SkipEpisodeError: the episode must be left out.
        """


class ConversionJob(Protocol):
    """Part of the input that one process converts."""

    name: str
    """Stem of its file names: letters, digits, ``-``, ``_`` and ``.``."""
    path: str
    """Path of its input, for messages."""

    def identity(self) -> str:
        """Return a hash of the input and of every setting that changes the output, without reading all of the input."""

    def episodes(self, done: Callable[[int], bool], progress: Callable[[float, int], None]
                 ) -> Iterator[EpisodeStream]:
        """Yield the episodes of the job.

        Args:
            done: returns True for an index whose episode file exists; such an episode may be omitted.
            progress: called now and then with the fraction of the input that was read and the number of frames.

        Raises:
            ConvertError: the input, or the rest of it, cannot be read.
        """

    def report(self) -> ConversionReport:
        """Return the report, after the last episode."""


class EpisodeSource(Protocol):
    """Kind of input; the modules ``rosbag.source`` and ``lerobot.source`` implement it."""

    def list_jobs(self, arguments: ConvertArguments, contract: RobotContract) -> Sequence[ConversionJob]:
        """Divide ``arguments.inputs`` (paths) into jobs with unique names, in a fixed order.

        Raises:
            ConvertError: an input is missing or not of this kind, or a flag does not fit the contract.
        """
