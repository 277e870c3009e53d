"""Timing of the simulation loop: periodic events and the ratio of simulated to wall time.

Pure arithmetic on two clocks, simulated and wall time; the caller reads the clocks and sleeps.
"""

# Nanoseconds in a second.
_NS = 1_000_000_000
# A larger backlog is dropped: after a pause the simulation continues at its speed and does not catch up.
_BACKLOG_NS = 50_000_000


class RateTimer:
    """Timer of a periodic event on a clock that the caller reads."""

    def __init__(self, rate_hz: float, *, start_ns: int = 0) -> None:
        """Start the timer.

        Args:
            rate_hz: rate of the event [Hz].
            start_ns: time of the first event [ns].
        """
        self._period_ns = _NS / rate_hz
        self._start_ns = start_ns
        self._count = 0

    def due(self, now_ns: int) -> bool:
        """Return whether an event has become due since the last one that was reported; missed events are dropped."""
        count = int((now_ns - self._start_ns) // self._period_ns) + 1
        if count <= self._count:
            return False
        self._count = count
        return True


class RealTimePacer:
    """Pacer that keeps simulated time at a multiple of wall time, or behind it on a slow machine."""

    def __init__(self, speed: float, *, wall_ns: int, sim_ns: int) -> None:
        """Start at the current time of both clocks.

        Args:
            speed: simulated seconds per second of wall time.
            wall_ns: current wall time [ns].
            sim_ns: current simulated time [ns].
        """
        self._speed = speed
        self._wall_ns, self._sim_ns = wall_ns, sim_ns
        self._mark = (wall_ns, sim_ns)

    def wait_s(self, wall_ns: int, sim_ns: int) -> float:
        """Return the time until the simulation may advance beyond ``sim_ns`` [s]; 0 when it is late."""
        due_ns = self._wall_ns + round((sim_ns - self._sim_ns) / self._speed)
        if wall_ns - due_ns > _BACKLOG_NS:
            self._wall_ns, self._sim_ns = wall_ns - _BACKLOG_NS, sim_ns
        return max(0.0, (due_ns - wall_ns) / _NS)

    def real_time_factor(self, wall_ns: int, sim_ns: int) -> float:
        """Return the real-time factor since the last call."""
        wall_mark, sim_mark = self._mark
        self._mark = (wall_ns, sim_ns)
        return (sim_ns - sim_mark) / max(wall_ns - wall_mark, 1)
