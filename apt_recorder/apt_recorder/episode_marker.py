"""Episode marks of a recording, decided from keys, prompts and the marks of other nodes.

The marker uses neither terminal nor topics: its methods take events and return the marks to publish.
"""

from apt_policy.core.topics import EpisodeMark

BEGIN_OR_END, DISCARD = ' ', 'd'


class EpisodeMarker:
    """State of the current episode."""

    def __init__(self, *, per_prompt: bool = False) -> None:
        """Start without an open episode.

        Args:
            per_prompt: True if each new instruction begins an episode and ends the one before.
        """
        self._per_prompt = per_prompt
        self._prompt = ''
        self._began_here = False
        self._pending = 0
        self._will_be_open = False
        self.is_open = False
        """True if an episode is open."""
        self.episodes = 0
        """Number of episodes that ended and were not discarded."""
        self.discarded = 0
        """Number of discarded episodes."""

    def on_key(self, key: str) -> tuple[EpisodeMark, ...]:
        """Return the marks for a pressed key."""
        if key == BEGIN_OR_END:
            self._began_here = True
            return self._publish(EpisodeMark.END if self._will_be_open else EpisodeMark.BEGIN)
        return self._publish(EpisodeMark.DISCARD) if key == DISCARD and self._will_be_open else ()

    def on_prompt(self, text: str) -> tuple[EpisodeMark, ...]:
        """Return the marks for an instruction; a repeated one has none, an empty one ends the episode."""
        if not self._per_prompt or text == self._prompt:
            return ()
        self._prompt, self._began_here = text, True
        end = (EpisodeMark.END,) if self._will_be_open else ()
        return self._publish(*end, EpisodeMark.BEGIN) if text else self._publish(*end)

    def on_mark(self, mark: str) -> str:
        """Update the state for a mark of any node, and return why the mark is invalid; empty if it is valid."""
        self._pending = max(0, self._pending - 1)
        try:
            known = EpisodeMark(mark)
        except ValueError:
            return f'unknown episode mark {mark!r}, expected one of {", ".join(m.value for m in EpisodeMark)}'
        if (known is EpisodeMark.BEGIN) == self.is_open:
            reason = 'an episode is already open' if self.is_open else 'no episode is open'
            return f'ignored mark {mark!r}: {reason}'
        self.is_open = known is EpisodeMark.BEGIN
        if self.all_marks_received:
            self._will_be_open = self.is_open
        self.episodes += known is EpisodeMark.END
        self.discarded += known is EpisodeMark.DISCARD
        return ''

    def on_recording_end(self) -> tuple[EpisodeMark, ...]:
        """Return the marks for the end of the recording: it ends an episode that this recorder began."""
        return self._publish(EpisodeMark.END) if self._will_be_open and self._began_here else ()

    @property
    def all_marks_received(self) -> bool:
        """True if all published marks of this recorder were received back."""
        return self._pending == 0

    def _publish(self, *marks: EpisodeMark) -> tuple[EpisodeMark, ...]:
        # The next key may be pressed before DDS delivers the mark of this one.
        self._pending += len(marks)
        if marks:
            self._will_be_open = marks[-1] is EpisodeMark.BEGIN
        return marks
