"""When the simulation takes its steps, and what is due with them.

Plain arithmetic on two clocks: simulated time, which only ever advances by whole ticks, and wall
time, which :class:`Pacer` is given. Nothing here sleeps.
"""

_NS = 1_000_000_000
# A backlog beyond this is not made up for: after a pause time goes on, it does not race.
_BACKLOG_NS = 50_000_000


class Beat:
    """Marks the ticks at which something periodic is due."""

    def __init__(self, rate_hz: float, *, start_ns: int = 0) -> None:
        self._period_ns = _NS / rate_hz
        self._start_ns = start_ns
        self._count = 0

    def due(self, now_ns: int) -> bool:
        """Whether a beat has come since the last call that said so; missed beats are dropped."""
        beat = int((now_ns - self._start_ns) // self._period_ns) + 1
        if beat <= self._count:
            return False
        self._count = beat
        return True


class Pacer:
    """Keeps simulated time at a multiple of wall time, or behind it on a machine that is too slow."""

    def __init__(self, speed: float, *, wall_ns: int, sim_ns: int) -> None:
        """
        Args:
            speed: simulated seconds per second of wall time.
            wall_ns, sim_ns: the two clocks now.
        """
        self._speed = speed
        self._wall_ns, self._sim_ns = wall_ns, sim_ns
        self._mark = (wall_ns, sim_ns)

    def wait_s(self, wall_ns: int, sim_ns: int) -> float:
        """How long to wait until simulated time may go beyond ``sim_ns`` [s]; 0 when late."""
        due_ns = self._wall_ns + round((sim_ns - self._sim_ns) / self._speed)
        if wall_ns - due_ns > _BACKLOG_NS:
            self._wall_ns, self._sim_ns = wall_ns - _BACKLOG_NS, sim_ns
        return max(0.0, (due_ns - wall_ns) / _NS)

    def factor(self, wall_ns: int, sim_ns: int) -> float:
        """Simulated time per wall time since the last call."""
        wall_mark, sim_mark = self._mark
        self._mark = (wall_ns, sim_ns)
        return (sim_ns - sim_mark) / max(wall_ns - wall_mark, 1)
