"""Objects and trays of the table: names, colours and sizes.

Independent of the simulator, so that tasks and language can use them without MuJoCo. Every object can be grasped from
above, with the fingers across its narrow side.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np

from apt_policy.core.errors import UserError

Colour = tuple[float, float, float]
"""RGB colour, each channel 0..1."""

OBJECT_COLOURS: Mapping[str, Colour] = {
    'red': (0.85, 0.10, 0.10), 'green': (0.12, 0.65, 0.20), 'blue': (0.12, 0.30, 0.85),
    'yellow': (0.95, 0.82, 0.10), 'purple': (0.52, 0.18, 0.72), 'orange': (0.97, 0.47, 0.06)}
TRAY_COLOURS: Mapping[str, Colour] = {
    'white': (0.93, 0.93, 0.93), 'black': (0.13, 0.13, 0.14), 'red': (0.62, 0.16, 0.14), 'blue': (0.16, 0.26, 0.58)}

OBJECT_SIDE = 0.04
"""Height of every object, and its width between the fingers [m]."""
TRAY_SIZE = (0.15, 0.12, 0.03)
"""Size of a tray along x, y and z of the world [m]."""


class UnknownObjectError(UserError, ValueError):
    """Unknown object name; the message lists the known colours and shapes."""


class Shape(Enum):
    """Shape of an object."""

    CUBE = 'cube'
    CUP = 'cup'
    """Octagonal prism with a dark hollow in its top."""
    BAR = 'bar'
    """Box that is longer than it is wide."""

    @property
    def length(self) -> float:
        """Length along the object's own x axis [m]; fingers close along its y axis."""
        return 0.07 if self is Shape.BAR else OBJECT_SIDE

    @property
    def symmetry_angle(self) -> float:
        """Smallest rotation about z that maps the shape's grasps onto each other [rad]."""
        return {Shape.CUBE: np.pi / 2, Shape.CUP: np.pi / 4, Shape.BAR: np.pi}[self]


@dataclass(frozen=True, kw_only=True)
class ObjectSpec:
    """Colour and shape of an object; both make up its name, such as ``red cube``."""

    colour: str
    shape: Shape

    @property
    def name(self) -> str:
        """Name of the object."""
        return f'{self.colour} {self.shape.value}'


def object_spec(name: str) -> ObjectSpec:
    """Parse an object's name; inverse of :attr:`ObjectSpec.name`.

    Raises:
        UnknownObjectError: the colour or the shape is unknown.
    """
    colour, _, shape = name.partition(' ')
    shapes = [known.value for known in Shape]
    if colour not in OBJECT_COLOURS or shape not in shapes:
        raise UnknownObjectError(f'unknown object {name!r}; expected a colour and a shape: one of '
                                 f'{", ".join(OBJECT_COLOURS)}, then one of {", ".join(shapes)}')
    return ObjectSpec(colour=colour, shape=Shape(shape))


ALL_OBJECTS = tuple(f'{colour} {shape.value}' for shape in Shape for colour in OBJECT_COLOURS)
CUBES = tuple(f'{colour} {Shape.CUBE.value}' for colour in OBJECT_COLOURS)
