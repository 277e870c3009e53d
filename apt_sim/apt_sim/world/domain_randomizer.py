"""Domain randomisation: objects of an episode, colours, lights and camera poses, sampled from its seed.

A compiled model has slots for objects, not the objects themselves: colours, shapes, lights and cameras are data that
change between episodes without compiling again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from apt_sim.world.object_assets import OBJECT_PREFIX, TRAY_PREFIX
from apt_sim.world.objects import OBJECT_COLOURS, TRAY_COLOURS, Shape, object_spec
from apt_sim.world.scene import CAMERA_PREFIX, HIDDEN_GROUP, TABLE, RandomizationConfig, SceneConfig

HOLLOW_COLOUR = (0.08, 0.07, 0.07)
"""RGB colour of the hollow in a cup, the same for all cups."""
# Geom group that MuJoCo draws by default.
_VISIBLE_GROUP = 0


@dataclass(frozen=True, kw_only=True)
class SceneObjects:
    """Objects and trays of one episode."""

    objects: tuple[str, ...]
    """Names of the objects by slot."""
    trays: tuple[str, ...]
    """Colours of the trays by slot."""


def sample_scene_objects(settings: SceneConfig, random: np.random.Generator) -> SceneObjects:
    """Sample the configured number of objects and trays; keep their order if all of them are used."""
    return SceneObjects(objects=_sample(settings.objects, settings.objects_on_table, random),
                        trays=_sample(settings.trays, settings.trays_on_table, random))


class DomainRandomizer:
    """Randomiser of one model's appearance; each call starts from the compiled values."""

    def __init__(self, model: mujoco.MjModel, variation: RandomizationConfig) -> None:
        """Store the compiled values of ``model``."""
        self._model, self._variation = model, variation
        cameras = [k for k in range(model.ncam) if model.camera(k).name.startswith(CAMERA_PREFIX)]
        self._cameras = [_Mount(index=k, position=model.cam_pos[k].copy(), wxyz=model.cam_quat[k].copy(),
                                fovy=float(model.cam_fovy[k])) for k in cameras]
        self._lights = model.light_pos.copy(), model.light_diffuse.copy()
        self._ambient = np.array(model.vis.headlight.ambient), np.array(model.vis.headlight.diffuse)
        self._table = model.geom_rgba[model.geom(TABLE).id].copy()

    def randomize(self, scene_objects: SceneObjects, random: np.random.Generator) -> None:
        """Assign the objects to their slots and sample colours, lights and camera poses."""
        for slot, name in enumerate(scene_objects.objects):
            self._set_shape(slot, object_spec(name).shape,
                            self._tinted(OBJECT_COLOURS[object_spec(name).colour], random))
        for slot, colour in enumerate(scene_objects.trays):
            body = self._model.body(f'{TRAY_PREFIX}{slot}')
            first, count = int(body.geomadr[0]), int(body.geomnum[0])
            self._model.geom_rgba[first:first + count, :3] = self._tinted(TRAY_COLOURS[colour], random)
        self._model.geom_rgba[self._model.geom(TABLE).id, :3] = self._tinted(self._table[:3], random)
        self._randomize_lights(random)
        self._randomize_cameras(random)

    def _set_shape(self, slot: int, selected: Shape, rgb: NDArray[np.float64]) -> None:
        model, body = self._model, self._model.body(f'{OBJECT_PREFIX}{slot}')
        for geom in range(int(body.geomadr[0]), int(body.geomadr[0] + body.geomnum[0])):
            shape, _, part = model.geom(geom).name.removeprefix(f'{OBJECT_PREFIX}{slot}/').partition('/')
            visible = shape == selected.value
            model.geom_group[geom] = _VISIBLE_GROUP if visible else HIDDEN_GROUP
            model.geom_contype[geom] = model.geom_conaffinity[geom] = int(visible and not part)
            model.geom_rgba[geom, :3] = HOLLOW_COLOUR if part else rgb

    def _tinted(self, rgb: Sequence[float] | NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
        spread = self._variation.tint
        return np.clip(np.asarray(rgb) * random.uniform(1 - spread, 1 + spread, 3), 0.0, 1.0)

    def _randomize_lights(self, random: np.random.Generator) -> None:
        model, spread = self._model, self._variation.brightness
        position, diffuse = self._lights
        model.light_pos[:] = position + random.uniform(-1, 1, position.shape) * self._variation.light_shift
        model.light_diffuse[:] = diffuse * random.uniform(1 - spread, 1 + spread, (len(diffuse), 1))
        ambient, front = self._ambient
        model.vis.headlight.ambient = ambient * random.uniform(1 - spread, 1 + spread)
        model.vis.headlight.diffuse = front * random.uniform(1 - spread, 1 + spread)

    def _randomize_cameras(self, random: np.random.Generator) -> None:
        model, variation = self._model, self._variation
        for camera in self._cameras:
            turn = Rotation.from_rotvec(random.uniform(-1, 1, 3) * variation.camera_turn)
            mounted = Rotation.from_quat(camera.wxyz, scalar_first=True) * turn
            model.cam_quat[camera.index] = mounted.as_quat(scalar_first=True)
            model.cam_pos[camera.index] = camera.position + random.uniform(-1, 1, 3) * variation.camera_shift
            model.cam_fovy[camera.index] = camera.fovy + random.uniform(-1, 1) * variation.fovy_deg


@dataclass(frozen=True, kw_only=True, eq=False)
class _Mount:
    """Compiled pose and field of view of a camera."""

    index: int
    position: NDArray[np.float64]
    wxyz: NDArray[np.float64]
    fovy: float


def _sample(pool: tuple[str, ...], count: int, random: np.random.Generator) -> tuple[str, ...]:
    if count in (0, len(pool)):
        return pool
    return tuple(pool[k] for k in random.permutation(len(pool))[:count])
