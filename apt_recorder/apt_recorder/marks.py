"""Where episodes begin and end, decided from keys, prompts and what others mark.

It knows neither terminals nor topics: it is told what happened, and answers with the marks to publish.
"""

from apt_policy.core.topics import EpisodeMark

BEGIN_OR_END, DISCARD = ' ', 'd'


class Marker:
    """The episode that is open, if any."""

    def __init__(self, *, per_prompt: bool = False) -> None:
        """``per_prompt``: every new instruction begins an episode, and ends the one before."""
        self._per_prompt = per_prompt
        self._prompt = ''
        self._is_own = False
        self._unheard = 0
        self._will_be_open = False
        self.open = False
        self.episodes = 0
        """That ended and count."""
        self.discarded = 0

    def key(self, key: str) -> tuple[EpisodeMark, ...]:
        """A key was pressed."""
        if key == BEGIN_OR_END:
            self._is_own = True
            return self._announced(EpisodeMark.END if self._will_be_open else EpisodeMark.BEGIN)
        return self._announced(EpisodeMark.DISCARD) if key == DISCARD and self._will_be_open else ()

    def prompt(self, text: str) -> tuple[EpisodeMark, ...]:
        """An instruction was heard; the same one twice says nothing new, an empty one ends."""
        if not self._per_prompt or text == self._prompt:
            return ()
        self._prompt, self._is_own = text, True
        end = (EpisodeMark.END,) if self._will_be_open else ()
        return self._announced(*end, EpisodeMark.BEGIN) if text else self._announced(*end)

    def heard(self, mark: str) -> str:
        """A mark was published, by whomever; returns what is wrong with it, or nothing."""
        self._unheard = max(0, self._unheard - 1)
        try:
            known = EpisodeMark(mark)
        except ValueError:
            return f'{mark!r} is no episode mark; there are {", ".join(m.value for m in EpisodeMark)}'
        if (known is EpisodeMark.BEGIN) == self.open:
            wrong = 'an episode is open already' if self.open else 'no episode is open'
            return f'mark {mark!r}, but {wrong}'
        self.open = known is EpisodeMark.BEGIN
        if self.settled:
            self._will_be_open = self.open
        self.episodes += known is EpisodeMark.END
        self.discarded += known is EpisodeMark.DISCARD
        return ''

    def at_the_end(self) -> tuple[EpisodeMark, ...]:
        """The recording ends: so does the episode that was begun here; others mark their own."""
        return self._announced(EpisodeMark.END) if self._will_be_open and self._is_own else ()

    @property
    def settled(self) -> bool:
        """Whether all marks that were answered here have been heard."""
        return self._unheard == 0

    def _announced(self, *marks: EpisodeMark) -> tuple[EpisodeMark, ...]:
        # The next key may come before DDS has brought back what this one said.
        self._unheard += len(marks)
        if marks:
            self._will_be_open = marks[-1] is EpisodeMark.BEGIN
        return marks
