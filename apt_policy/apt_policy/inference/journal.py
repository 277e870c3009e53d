"""The hold on record, and what is worth telling others.

Not thread-safe; the loop's lock guards it.
"""

from collections import deque

from apt_policy.core.sample import Hold, HoldReason, Target
from apt_policy.inference.report import Event, HoldChanged

_MOVING = Hold(reason=HoldReason.NONE)
_KEPT = 256


class Journal:
    """A change of reason is told once, however long it lasts."""

    def __init__(self) -> None:
        """Holding, since nothing was activated yet."""
        self.hold = Hold(reason=HoldReason.INACTIVE)
        """The present one; reason NONE while targets flow."""
        self._events: deque[Event] = deque(maxlen=_KEPT)

    def note(self, event: Event) -> None:
        """Something happened."""
        self._events.append(event)

    def record(self, outcome: Target | Hold) -> None:
        """What a control tick came to."""
        hold = outcome if isinstance(outcome, Hold) else _MOVING
        if hold.reason is not self.hold.reason:
            self.note(HoldChanged(hold=hold, previous=self.hold.reason))
        self.hold = hold

    def first_of(self, holds: list[Hold]) -> Hold:
        """The one of several causes that stays on record: the one already there, while it lasts."""
        return next((hold for hold in holds if hold.reason is self.hold.reason), holds[0])

    def drain(self) -> tuple[Event, ...]:
        """What happened since the last call, oldest first."""
        events = tuple(self._events)
        self._events.clear()
        return events
