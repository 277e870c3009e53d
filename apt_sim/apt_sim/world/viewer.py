"""MuJoCo's own window onto the simulation, for people; nothing depends on it."""

import os
from typing import Any

from apt_sim.world.graphics import GraphicsError
from apt_sim.world.pace import Beat
from apt_sim.world.physics import Simulation

_RATE_HZ = 30.0


class Viewer:
    """An open window; closing it leaves the simulation running."""

    def __init__(self, simulation: Simulation) -> None:
        """Open it.

        Raises:
            GraphicsError: there is no display.
        """
        if not (os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')):
            raise GraphicsError('the viewer needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is set; '
                                'start the simulator with viewer:=false')
        # Loads a window system, which nothing else here wants.
        import mujoco.viewer
        self._handle: Any = mujoco.viewer.launch_passive(simulation.model, simulation.data)
        self._beat = Beat(_RATE_HZ)

    def refresh(self, wall_ns: int) -> None:
        """Show the present state if a new frame is due."""
        if self._beat.due(wall_ns) and self._handle.is_running():
            self._handle.sync()

    def close(self) -> None:
        """Close the window; harmless when it is closed."""
        self._handle.close()
