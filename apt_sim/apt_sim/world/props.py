"""Places for objects and trays in a MuJoCo model.

A place has every shape that may come to lie there, and wears one at a time; which one, and in which colour, is
said at the beginning of an episode (``dressing``). So a model is compiled once for all episodes, and what is
not on the table costs nothing.
"""

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from apt_sim.world.things import OBJECT_SIDE, TRAY_SIZE, Shape

OBJECT_PREFIX = 'object/'
TRAY_PREFIX = 'tray/'
_OBJECT_MASS = 0.05
_HOLLOW_RADIUS = 0.013
_CUP_MESH = 'cup'
_WALL = 0.004


def add_objects(spec: mujoco.MjSpec, places: int, shapes: Sequence[Shape]) -> None:
    """Add bodies that may wear any of ``shapes``."""
    kinds = list(dict.fromkeys(shapes))
    if Shape.CUP in kinds:
        _add_cup_mesh(spec)
    for place in range(places):
        _add_object(spec, place, kinds)


def add_trays(spec: mujoco.MjSpec, places: int) -> None:
    """Add trays, which nothing moves."""
    for place in range(places):
        _add_tray(spec, place)


def _add_object(spec: mujoco.MjSpec, place: int, shapes: Sequence[Shape]) -> None:
    name = f'{OBJECT_PREFIX}{place}'
    inertia = _OBJECT_MASS * OBJECT_SIDE**2 / 6
    body = spec.worldbody.add_body(name=name, explicitinertial=True, mass=_OBJECT_MASS, inertia=[inertia] * 3)
    body.add_freejoint(name=name)
    half = OBJECT_SIDE / 2
    for shape in shapes:
        form: dict[str, Any] = {'type': mujoco.mjtGeom.mjGEOM_BOX, 'size': [shape.length / 2, half, half]}
        if shape is Shape.CUP:
            form = {'type': mujoco.mjtGeom.mjGEOM_MESH, 'meshname': _CUP_MESH}
            body.add_geom(name=f'{name}/{shape.value}/hollow', type=mujoco.mjtGeom.mjGEOM_CYLINDER,
                          size=[_HOLLOW_RADIUS, 0.0005, 0], pos=[0, 0, half], contype=0, conaffinity=0)
        body.add_geom(**form, name=f'{name}/{shape.value}', condim=4, friction=[1.0, 0.005, 0.0001],
                      solref=[0.01, 1.0], solimp=[0.99, 0.99, 0.01, 0.5, 2.0])


def _add_cup_mesh(spec: mujoco.MjSpec) -> None:
    """Eight flat sides: a round cup would roll away from a hand that pushes, and turn in one that holds."""
    angle = np.pi / 8 * np.arange(1, 16, 2)
    ring = OBJECT_SIDE / 2 / np.cos(np.pi / 8) * np.column_stack([np.cos(angle), np.sin(angle)])
    corners = [[*corner, height] for height in (-OBJECT_SIDE / 2, OBJECT_SIDE / 2) for corner in ring]
    spec.add_mesh(name=_CUP_MESH, uservert=np.ravel(corners))


def _add_tray(spec: mujoco.MjSpec, place: int) -> None:
    body = spec.worldbody.add_body(name=f'{TRAY_PREFIX}{place}', mocap=True)
    width, depth, height = TRAY_SIZE
    x, y, z = width / 2, depth / 2, height / 2
    slabs = [([x, y, _WALL / 2], [0, 0, _WALL / 2])]
    slabs += [([_WALL / 2, y, z], [side * (x - _WALL / 2), 0, z]) for side in (-1, 1)]
    slabs += [([x, _WALL / 2, z], [0, side * (y - _WALL / 2), z]) for side in (-1, 1)]
    for size, pos in slabs:
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=size, pos=pos)
