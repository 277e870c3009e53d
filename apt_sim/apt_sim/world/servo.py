"""The motors of one arm as its driver presents them: position commands in, set points out.

A motor that only chases its command trails a moving one, so servos are fed the commanded velocity
forward, and so does this class. It knows neither messages nor MuJoCo.
"""

import numpy as np
from numpy.typing import NDArray

# A stream of commands is taken to have ended when the next one is this many periods late. Dropping the lead earlier
# jerks the hand by a centimetre at every hiccup of a busy machine, and what it holds slips. Between two beats, so that
# rounding does not decide.
_PATIENCE_PERIODS = 4.5
# Arrivals jitter too much to divide by, unless one is so many periods late that commands were lost.
_LATE_PERIODS = 1.5


class Servo:
    """Set points of one arm from the stream of its commands."""

    def __init__(self, *, lower: NDArray[np.float64], upper: NDArray[np.float64], velocity: float,
                 damping_s: float, period_s: float) -> None:
        """
        Args:
            lower, upper: (J,) joint limits [rad].
            velocity: joint limit [rad/s].
            damping_s: velocity feedback of the motors as a share of their stiffness [s].
            period_s: spacing of a command stream [s]; arrival times jitter too much to divide by.
        """
        self._lower, self._upper = lower, upper
        # The first term cancels the feedback; a command that stands for a period is half of it old.
        self._lead_s = damping_s + period_s / 2
        self._velocity_limit = velocity
        self._period_s = period_s
        self._command = np.clip(np.zeros_like(lower), lower, upper)
        self._led = self._command
        self._since_s = -np.inf

    def settle(self, joints: NDArray[np.float64]) -> None:
        """Forget the stream and keep ``joints`` (J,) [rad]."""
        self._command = np.asarray(joints, np.float64).copy()
        self._since_s = -np.inf

    def accept(self, joints: NDArray[np.float64], now_s: float) -> None:
        """Take a command (J,) [rad] that arrived at ``now_s``."""
        elapsed_s = now_s - self._since_s
        streaming = elapsed_s <= _PATIENCE_PERIODS * self._period_s
        late = elapsed_s > _LATE_PERIODS * self._period_s
        step = np.asarray(joints, np.float64) - self._command
        velocity = step / (elapsed_s if late else self._period_s) if streaming else np.zeros_like(step)
        self._command = self._command + step
        lead = self._lead_s * np.clip(velocity, -self._velocity_limit, self._velocity_limit)
        self._led = np.clip(self._command + lead, self._lower, self._upper)
        self._since_s = now_s

    def set_point(self, now_s: float) -> NDArray[np.float64]:
        """(J,) what the position controllers are given at ``now_s`` [rad]."""
        ended = now_s - self._since_s > _PATIENCE_PERIODS * self._period_s
        return self._command if ended else self._led
