"""What can lie on the table: objects of a colour and a shape, trays of a colour.

Names and measures only, so that tasks and language can speak of things without a simulator. Every object
can be taken from above, with the fingers across its narrow side.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np

from apt_policy.core.errors import UserError

Colour = tuple[float, float, float]
"""Red, green, blue, each 0..1."""

OBJECT_COLOURS: Mapping[str, Colour] = {
    'red': (0.85, 0.10, 0.10), 'green': (0.12, 0.65, 0.20), 'blue': (0.12, 0.30, 0.85),
    'yellow': (0.95, 0.82, 0.10), 'purple': (0.52, 0.18, 0.72), 'orange': (0.97, 0.47, 0.06)}
TRAY_COLOURS: Mapping[str, Colour] = {
    'white': (0.93, 0.93, 0.93), 'black': (0.13, 0.13, 0.14), 'red': (0.62, 0.16, 0.14), 'blue': (0.16, 0.26, 0.58)}

OBJECT_SIDE = 0.04
"""Height of every object, and its width between the fingers [m]."""
TRAY_SIZE = (0.15, 0.12, 0.03)
"""Along x, y and z of the world [m]."""


class ThingError(UserError, ValueError):
    """A thing that does not exist; the message says which ones do."""


class Shape(Enum):
    """A kind of object."""

    CUBE = 'cube'
    CUP = 'cup'
    """Eight sides, and a dark hollow in its top."""
    BAR = 'bar'
    """Longer than it is wide."""

    @property
    def length(self) -> float:
        """Along the object's own x axis [m]; its y axis is the one that fingers close along."""
        return 0.07 if self is Shape.BAR else OBJECT_SIDE

    @property
    def turn(self) -> float:
        """Rotation about z after which fingers find it alike [rad]."""
        return {Shape.CUBE: np.pi / 2, Shape.CUP: np.pi / 4, Shape.BAR: np.pi}[self]


@dataclass(frozen=True, kw_only=True)
class Thing:
    """An object by its looks; it is called by both words, as in ``red cube``."""

    colour: str
    shape: Shape

    @property
    def name(self) -> str:
        """What it is called, everywhere."""
        return f'{self.colour} {self.shape.value}'


def thing(name: str) -> Thing:
    """The object of a name; the inverse of :attr:`Thing.name`.

    Raises:
        ThingError: no such colour, or no such shape.
    """
    colour, _, shape = name.partition(' ')
    shapes = [known.value for known in Shape]
    if colour not in OBJECT_COLOURS or shape not in shapes:
        raise ThingError(f'no such object as {name!r}; expected a colour and a shape: one of '
                         f'{", ".join(OBJECT_COLOURS)}, then one of {", ".join(shapes)}')
    return Thing(colour=colour, shape=Shape(shape))


ALL_OBJECTS = tuple(f'{colour} {shape.value}' for shape in Shape for colour in OBJECT_COLOURS)
CUBES = tuple(f'{colour} {Shape.CUBE.value}' for colour in OBJECT_COLOURS)
