"""Segmentation of a recording into episodes, by marks, by prompts, or as a whole.

The segmenter takes messages in order and returns what they mean for the episodes; it uses neither times nor frames.
"""

from dataclasses import dataclass
from enum import Enum, auto

from apt_policy.core.topics import EpisodeMark
from apt_training.convert.rosbag.config import SegmentationMode


class SegmentChange(Enum):
    """Effect of an event on the open episode."""

    BEGIN = auto()
    """An episode begins; the open one ends."""
    END = auto()
    """The open episode ends."""
    DISCARD = auto()
    """The open episode ends and is discarded."""
    ABANDON = auto()
    """An episode begins; the open one is discarded because its end was not marked."""


@dataclass(frozen=True, kw_only=True)
class SegmentEvent:
    """Effects of a message."""

    changes: tuple[SegmentChange, ...] = ()
    problem: str = ''
    """Reason why the message was ignored; empty for a valid one."""


class EpisodeSegmenter:
    """State of the open episode for one segmentation mode."""

    def __init__(self, mode: SegmentationMode) -> None:
        """Start without an open episode; ``mode`` must not be AUTO."""
        if mode is SegmentationMode.AUTO:
            raise ValueError('mode is AUTO, expected a mode from resolve_mode()')
        self._mode = mode
        self._prompt = ''
        self.is_open = False
        """True if an episode is open."""

    @property
    def prompt(self) -> str:
        """Latest instruction."""
        return self._prompt

    def on_start(self) -> SegmentEvent:
        """Return the effect of the beginning of the recording."""
        return self._begin() if self._mode is SegmentationMode.BAG else SegmentEvent()

    def on_prompt(self, text: str) -> SegmentEvent:
        """Return the effect of an instruction; a repeated one has none."""
        text = text.strip()
        if text == self._prompt:
            return SegmentEvent()
        self._prompt = text
        if self._mode is not SegmentationMode.PROMPT:
            return SegmentEvent()
        if text:
            return self._begin()
        ended = SegmentEvent(changes=(SegmentChange.END,)) if self.is_open else SegmentEvent()
        self.is_open = False
        return ended

    def on_mark(self, text: str) -> SegmentEvent:
        """Return the effect of an episode mark."""
        if self._mode is not SegmentationMode.MARKS:
            return SegmentEvent()
        try:
            mark = EpisodeMark(text.strip())
        except ValueError:
            return SegmentEvent(problem=f'unknown episode mark {text!r}, expected one of '
                                        f'{", ".join(m.value for m in EpisodeMark)}')
        if mark is EpisodeMark.BEGIN:
            return self._begin(abandons=self.is_open)
        if not self.is_open:
            return SegmentEvent(problem=f'ignored mark {mark.value!r}: no episode is open')
        self.is_open = False
        return SegmentEvent(changes=(SegmentChange.END if mark is EpisodeMark.END else SegmentChange.DISCARD,))

    def on_clock_jump(self) -> SegmentEvent:
        """Return the effect of a clock jump; the caller must end the open episode."""
        self.is_open = False
        begins = self._mode is SegmentationMode.BAG or (self._mode is SegmentationMode.PROMPT and self._prompt)
        return self._begin() if begins else SegmentEvent()

    def _begin(self, *, abandons: bool = False) -> SegmentEvent:
        self.is_open = True
        return SegmentEvent(changes=(SegmentChange.ABANDON if abandons else SegmentChange.BEGIN,))


def resolve_mode(mode: SegmentationMode, *, marks: bool, prompts: bool) -> SegmentationMode:
    """Return ``mode``, with AUTO replaced for a recording that has marks or prompts."""
    if mode is not SegmentationMode.AUTO:
        return mode
    return SegmentationMode.MARKS if marks else SegmentationMode.PROMPT if prompts else SegmentationMode.BAG
