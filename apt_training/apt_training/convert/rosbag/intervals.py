"""Where episodes begin and end in a recording, from marks, from what is said, or not at all.

It is told what was heard, in order, and answers with what that means. Times and frames are
not its business.
"""

from dataclasses import dataclass
from enum import Enum, auto

from apt_policy.core.topics import EpisodeMark
from apt_training.convert.rosbag.settings import Split


class Change(Enum):
    """What something that was heard means for the episode."""

    BEGIN = auto()
    """One begins; if one was open, it ends here."""
    END = auto()
    DISCARD = auto()
    """The open one ends and is not to be used."""
    ABANDON = auto()
    """One begins although the open one did not end: that one is not to be used."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What came of a message."""

    changes: tuple[Change, ...] = ()
    complaint: str = ''
    """What is wrong with it; it was ignored then."""


class Intervals:
    """The episode that is open, if any, by one way to split."""

    def __init__(self, split: Split) -> None:
        """``split`` must be decided: not AUTO."""
        if split is Split.AUTO:
            raise ValueError('split must be decided first')
        self._split = split
        self._prompt = ''
        self.open = False

    @property
    def prompt(self) -> str:
        """What was said last."""
        return self._prompt

    def start(self) -> Heard:
        """The recording begins."""
        return self._begun() if self._split is Split.BAG else Heard()

    def hear_prompt(self, text: str) -> Heard:
        """An instruction was given; the same one again says nothing new."""
        text = text.strip()
        if text == self._prompt:
            return Heard()
        self._prompt = text
        if self._split is not Split.PROMPT:
            return Heard()
        if text:
            return self._begun()
        ended = Heard(changes=(Change.END,)) if self.open else Heard()
        self.open = False
        return ended

    def hear_mark(self, text: str) -> Heard:
        """A mark was given."""
        if self._split is not Split.MARKS:
            return Heard()
        try:
            mark = EpisodeMark(text.strip())
        except ValueError:
            return Heard(complaint=f'{text!r} is no episode mark; there are {", ".join(m.value for m in EpisodeMark)}')
        if mark is EpisodeMark.BEGIN:
            return self._begun(abandons=self.open)
        if not self.open:
            return Heard(complaint=f'mark {mark.value!r}, but no episode is open')
        self.open = False
        return Heard(changes=(Change.END if mark is EpisodeMark.END else Change.DISCARD,))

    def clock_jumped(self) -> Heard:
        """Time starts anew: the open episode cannot go on, whoever keeps it has to end it."""
        self.open = False
        begins = self._split is Split.BAG or (self._split is Split.PROMPT and self._prompt)
        return self._begun() if begins else Heard()

    def _begun(self, *, abandons: bool = False) -> Heard:
        self.open = True
        return Heard(changes=(Change.ABANDON if abandons else Change.BEGIN,))


def decided(asked: Split, *, marks: bool, prompts: bool) -> Split:
    """What AUTO means for a recording that has marks or prompts."""
    if asked is not Split.AUTO:
        return asked
    return Split.MARKS if marks else Split.PROMPT if prompts else Split.BAG
