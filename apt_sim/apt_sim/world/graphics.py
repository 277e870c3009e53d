"""An OpenGL context without a window, or a message that says how to get one.

Knows nothing of what is drawn.
"""

import ctypes
from typing import Protocol

from apt_policy.core.errors import UserError

_INSTALL = ('the simulator draws through EGL; on Debian or Ubuntu run: '
            'apt-get install libegl1 libgl1-mesa-dri (software rendering; a GPU driver brings its own)')
_EGL_LIBRARY = 'libEGL.so.1'


class GraphicsError(UserError, RuntimeError):
    """Nothing can be drawn on this machine as it is; the message says what to install."""


class Context(Protocol):
    """An OpenGL context of one thread."""

    def make_current(self) -> None:
        """Draw into this context from now on."""

    def free(self) -> None:
        """Give the context back."""


def require_egl() -> None:
    """Check for the library before MuJoCo looks for it: its own failure explains nothing.

    Raises:
        GraphicsError: libEGL is not installed.
    """
    try:
        ctypes.CDLL(_EGL_LIBRARY)
    except OSError as error:
        raise GraphicsError(f'{_EGL_LIBRARY} cannot be loaded ({error}); {_INSTALL}') from error


def open_context(width: int, height: int) -> Context:
    """A context for pictures of this size, current in this thread.

    Raises:
        GraphicsError: EGL is not installed, or finds no driver.
    """
    require_egl()
    try:
        # Independent of MUJOCO_GL, and only needed by those who draw.
        from mujoco.egl import GLContext
        context: Context = GLContext(width, height)
        context.make_current()
    except (ImportError, AttributeError, RuntimeError) as error:
        raise GraphicsError(f'no OpenGL context: {error}; {_INSTALL}') from error
    return context
