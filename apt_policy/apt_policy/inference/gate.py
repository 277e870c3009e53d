"""Whether the arms may move at all: lifecycle, enable, dead-man, and the recorded fault.

A fault is latched: the first one stays on record until a person re-enables or resets. It
knows nothing of plans. Not thread-safe; the loop's lock guards it.
"""

from apt_policy.core.sample import Hold, HoldReason


class Gate:
    """Starts inactive and disabled."""

    def __init__(self, *, dead_man_timeout_s: float | None) -> None:
        """``dead_man_timeout_s``: a press counts this long [s]; None if no dead-man switch is used."""
        self.active = False
        self.enabled = False
        self.fault: Hold | None = None
        self.second_publishers: tuple[str, ...] = ()
        self._timeout_s = dead_man_timeout_s
        self._pressed_ns: int | None = None

    def latch(self, reason: HoldReason, detail: str) -> bool:
        """Record a fault; False if an earlier one is on record, which stays."""
        if self.fault is not None:
            return False
        self.fault = Hold(reason=reason, detail=detail)
        return True

    def press(self, pressed: bool, steady_ns: int) -> None:
        """The dead-man switch reported itself."""
        self._pressed_ns = steady_ns if pressed else None

    def closed(self, steady_ns: int) -> Hold | None:
        """Why the arms must not move, None if they may."""
        if not self.active:
            return Hold(reason=HoldReason.INACTIVE, detail='the node is not active')
        if self.fault is not None:
            return self.fault
        if not self.enabled:
            return Hold(reason=HoldReason.DISABLED, detail='call ~/enable to let the arms move')
        if self.second_publishers:
            return self.contested()
        return self._dead_man(steady_ns)

    def contested(self) -> Hold:
        """The hold because of :attr:`second_publishers`."""
        return Hold(reason=HoldReason.SECOND_PUBLISHER,
                    detail=f'somebody else publishes {", ".join(self.second_publishers)}')

    def _dead_man(self, steady_ns: int) -> Hold | None:
        if self._timeout_s is None:
            return None
        if self._pressed_ns is None:
            return Hold(reason=HoldReason.DEAD_MAN, detail='the dead-man switch is not pressed')
        silent_s = (steady_ns - self._pressed_ns) / 1e9
        if silent_s > self._timeout_s:
            return Hold(reason=HoldReason.DEAD_MAN, detail='the dead-man switch fell silent '
                        f'(limit {self._timeout_s:g} s)')
        return None
