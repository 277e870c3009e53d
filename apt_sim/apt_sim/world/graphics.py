"""OpenGL: an off-screen context for the cameras, and MuJoCo's interactive viewer."""

import ctypes
import os
from typing import TYPE_CHECKING, Any, Protocol

from apt_policy.core.errors import UserError
from apt_sim.world.pacing import RateTimer

if TYPE_CHECKING:
    import mujoco

_INSTALL = ('the simulator renders through EGL; on Debian or Ubuntu run: '
            'apt-get install libegl1 libgl1-mesa-dri (software rendering; a GPU driver brings its own)')
_EGL_LIBRARY = 'libEGL.so.1'
# Largest refresh rate of the viewer in wall time [Hz].
_VIEWER_RATE_HZ = 30.0


class GraphicsError(UserError, RuntimeError):
    """OpenGL or display that is not available; the message says what to install or to change."""


class RenderContext(Protocol):
    """OpenGL context of one thread."""

    def make_current(self) -> None:
        """Make this context the thread's render target."""

    def free(self) -> None:
        """Free the context."""


def require_egl() -> None:
    """Check that libEGL can be loaded; the error of MuJoCo's own import names no fix.

    Raises:
        GraphicsError: libEGL is not installed.
    """
    try:
        ctypes.CDLL(_EGL_LIBRARY)
    except OSError as error:
        raise GraphicsError(f'{_EGL_LIBRARY} cannot be loaded ({error}); {_INSTALL}') from error


def open_context(width: int, height: int) -> RenderContext:
    """Create an off-screen context and make it current in this thread.

    Args:
        width: image width [px].
        height: image height [px].

    Raises:
        GraphicsError: EGL is not installed, or finds no driver.
    """
    require_egl()
    try:
        # Independent of MUJOCO_GL; imported here because only rendering needs it.
        from mujoco.egl import GLContext
        context: RenderContext = GLContext(width, height)
        context.make_current()
    except (ImportError, AttributeError, RuntimeError) as error:
        raise GraphicsError(f'cannot create an OpenGL context: {error}; {_INSTALL}') from error
    return context


class Viewer:
    """Window of MuJoCo's interactive viewer; closing it does not stop the simulation."""

    def __init__(self, model: 'mujoco.MjModel', data: 'mujoco.MjData') -> None:
        """Open the window.

        Raises:
            GraphicsError: there is no display.
        """
        if not (os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')):
            raise GraphicsError('the viewer needs a display, but neither DISPLAY nor WAYLAND_DISPLAY is set; '
                                'start the simulator with viewer:=false')
        # Imported here because it loads a window system.
        from mujoco.viewer import launch_passive
        self._handle: Any = launch_passive(model, data)
        self._timer = RateTimer(_VIEWER_RATE_HZ)

    def refresh(self, wall_ns: int) -> None:
        """Show the current state if a frame is due.

        Args:
            wall_ns: wall time [ns].
        """
        if self._timer.due(wall_ns) and self._handle.is_running():
            self._handle.sync()

    def close(self) -> None:
        """Close the window; further calls have no effect."""
        self._handle.close()
