"""Which things lie on the table in an episode, and how everything looks: drawn from its seed.

A model has places for things, not the things themselves: colours, shapes, lights and cameras are data that
change between episodes without compiling anew. What moves is not known here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from apt_sim.world.props import OBJECT_PREFIX, TRAY_PREFIX
from apt_sim.world.scene import CAMERA_PREFIX, TABLE, UNSEEN_GROUP, SceneSettings, Variation
from apt_sim.world.things import OBJECT_COLOURS, TRAY_COLOURS, Shape, thing

HOLLOW = (0.08, 0.07, 0.07)
_SEEN_GROUP = 0


@dataclass(frozen=True, kw_only=True)
class Cast:
    """The things of one episode."""

    objects: tuple[str, ...]
    """Names; the k-th lies in the k-th place."""
    trays: tuple[str, ...]
    """Colours, likewise."""


def draw_cast(settings: SceneSettings, random: np.random.Generator) -> Cast:
    """Which of the settings' things lie on the table; all of them, in their order, unless there are more."""
    return Cast(objects=_some(settings.objects, settings.objects_on_table, random),
                trays=_some(settings.trays, settings.trays_on_table, random))


class Dresser:
    """Dresses one model, again and again; what it changes it always sets anew."""

    def __init__(self, model: mujoco.MjModel, variation: Variation) -> None:
        """Remember how ``model`` was compiled."""
        self._model, self._variation = model, variation
        cameras = [k for k in range(model.ncam) if model.camera(k).name.startswith(CAMERA_PREFIX)]
        self._cameras = [_Mount(index=k, position=model.cam_pos[k].copy(), wxyz=model.cam_quat[k].copy(),
                                fovy=float(model.cam_fovy[k])) for k in cameras]
        self._lights = model.light_pos.copy(), model.light_diffuse.copy()
        self._ambient = np.array(model.vis.headlight.ambient), np.array(model.vis.headlight.diffuse)
        self._table = model.geom_rgba[model.geom(TABLE).id].copy()

    def dress(self, cast: Cast, random: np.random.Generator) -> None:
        """Give every place its thing, and draw colours, lights and cameras."""
        for place, name in enumerate(cast.objects):
            self._shape(place, thing(name).shape, self._tinted(OBJECT_COLOURS[thing(name).colour], random))
        for place, colour in enumerate(cast.trays):
            body = self._model.body(f'{TRAY_PREFIX}{place}')
            first, count = int(body.geomadr[0]), int(body.geomnum[0])
            self._model.geom_rgba[first:first + count, :3] = self._tinted(TRAY_COLOURS[colour], random)
        self._model.geom_rgba[self._model.geom(TABLE).id, :3] = self._tinted(self._table[:3], random)
        self._light(random)
        self._mount(random)

    def _shape(self, place: int, worn: Shape, rgb: NDArray[np.float64]) -> None:
        model, body = self._model, self._model.body(f'{OBJECT_PREFIX}{place}')
        for geom in range(int(body.geomadr[0]), int(body.geomadr[0] + body.geomnum[0])):
            shape, _, part = model.geom(geom).name.removeprefix(f'{OBJECT_PREFIX}{place}/').partition('/')
            seen = shape == worn.value
            model.geom_group[geom] = _SEEN_GROUP if seen else UNSEEN_GROUP
            model.geom_contype[geom] = model.geom_conaffinity[geom] = int(seen and not part)
            model.geom_rgba[geom, :3] = HOLLOW if part else rgb

    def _tinted(self, rgb: Sequence[float] | NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
        spread = self._variation.tint
        return np.clip(np.asarray(rgb) * random.uniform(1 - spread, 1 + spread, 3), 0.0, 1.0)

    def _light(self, random: np.random.Generator) -> None:
        model, spread = self._model, self._variation.brightness
        position, diffuse = self._lights
        model.light_pos[:] = position + random.uniform(-1, 1, position.shape) * self._variation.light_shift
        model.light_diffuse[:] = diffuse * random.uniform(1 - spread, 1 + spread, (len(diffuse), 1))
        ambient, front = self._ambient
        model.vis.headlight.ambient = ambient * random.uniform(1 - spread, 1 + spread)
        model.vis.headlight.diffuse = front * random.uniform(1 - spread, 1 + spread)

    def _mount(self, random: np.random.Generator) -> None:
        model, variation = self._model, self._variation
        for camera in self._cameras:
            turn = Rotation.from_rotvec(random.uniform(-1, 1, 3) * variation.camera_turn)
            mounted = Rotation.from_quat(camera.wxyz, scalar_first=True) * turn
            model.cam_quat[camera.index] = mounted.as_quat(scalar_first=True)
            model.cam_pos[camera.index] = camera.position + random.uniform(-1, 1, 3) * variation.camera_shift
            model.cam_fovy[camera.index] = camera.fovy + random.uniform(-1, 1) * variation.fovy_deg


@dataclass(frozen=True, kw_only=True, eq=False)
class _Mount:
    """A camera as it was compiled."""

    index: int
    position: NDArray[np.float64]
    wxyz: NDArray[np.float64]
    fovy: float


def _some(pool: tuple[str, ...], count: int, random: np.random.Generator) -> tuple[str, ...]:
    if count in (0, len(pool)):
        return pool
    return tuple(pool[k] for k in random.permutation(len(pool))[:count])
