"""Slots for objects and trays in a MuJoCo model.

A slot has the geometry of every shape that it may take and shows one at a time; :class:`DomainRandomizer` selects shape
and colour at the start of an episode. A model is therefore compiled once for all episodes, and objects that are not on
the table cost nothing.
"""

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from apt_sim.world.objects import OBJECT_SIDE, TRAY_SIZE, Shape

OBJECT_PREFIX = 'object/'
TRAY_PREFIX = 'tray/'
_OBJECT_MASS = 0.05
"""Mass of every object [kg]."""
_HOLLOW_RADIUS = 0.013
"""Radius of the dark disc in the top of a cup [m]."""
_CUP_MESH = 'cup'
_WALL = 0.004
"""Thickness of a tray's walls [m]."""


def add_objects(spec: mujoco.MjSpec, slots: int, shapes: Sequence[Shape]) -> None:
    """Add object bodies that can take any of ``shapes``."""
    kinds = list(dict.fromkeys(shapes))
    if Shape.CUP in kinds:
        _add_cup_mesh(spec)
    for slot in range(slots):
        _add_object(spec, slot, kinds)


def add_trays(spec: mujoco.MjSpec, slots: int) -> None:
    """Add trays, which are fixed during an episode."""
    for slot in range(slots):
        _add_tray(spec, slot)


def _add_object(spec: mujoco.MjSpec, slot: int, shapes: Sequence[Shape]) -> None:
    name = f'{OBJECT_PREFIX}{slot}'
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
    """Add an octagonal prism: a round cup would roll when pushed, and turn between the fingers."""
    angle = np.pi / 8 * np.arange(1, 16, 2)
    ring = OBJECT_SIDE / 2 / np.cos(np.pi / 8) * np.column_stack([np.cos(angle), np.sin(angle)])
    corners = [[*corner, height] for height in (-OBJECT_SIDE / 2, OBJECT_SIDE / 2) for corner in ring]
    spec.add_mesh(name=_CUP_MESH, uservert=np.ravel(corners))


def _add_tray(spec: mujoco.MjSpec, slot: int) -> None:
    body = spec.worldbody.add_body(name=f'{TRAY_PREFIX}{slot}', mocap=True)
    width, depth, height = TRAY_SIZE
    x, y, z = width / 2, depth / 2, height / 2
    slabs = [([x, y, _WALL / 2], [0, 0, _WALL / 2])]
    slabs += [([_WALL / 2, y, z], [side * (x - _WALL / 2), 0, z]) for side in (-1, 1)]
    slabs += [([x, _WALL / 2, z], [0, side * (y - _WALL / 2), z]) for side in (-1, 1)]
    for size, pos in slabs:
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=size, pos=pos)
