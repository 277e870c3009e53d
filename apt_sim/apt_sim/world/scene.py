"""The simulated scene as one MuJoCo model: two ViperX arms, a table, places for objects and trays, cameras.

Meshes and table come from gym-aloha's description; where the arms, their joints and the fixed cameras
stand comes from the contract, so the two cannot disagree. Nothing moves here, and which objects lie in
the places is an episode's matter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import mujoco
import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import RobotContract
from apt_policy.core.geometry import rotation_to_wxyz
from apt_sim.world import assets, props
from apt_sim.world.arms import SceneError, hand, place_arms
from apt_sim.world.meshes import coarsen
from apt_sim.world.things import ALL_OBJECTS, CUBES, TRAY_COLOURS, thing

PICTURES = 'aloha_sim 2'
"""Changes when the same scene would be drawn otherwise."""
CAMERA_PREFIX = 'camera/'
TABLE = 'table'
FLOOR = 'floor'
# MuJoCo draws groups 0 to 2 unless told otherwise.
UNSEEN_GROUP = 3
# MuJoCo's cameras look along -z with y up; optical frames along z with y down.
CAMERA_FROM_OPTICAL = np.diag([1.0, -1.0, -1.0])
# Where the wrist cameras sit on the hand: above it and turned down, so that the fingertips are in the
# middle of the picture and the finger rail stays at its lower edge.
WRIST_CAMERA_POSITION = (0.04, 0.0, 0.10)
WRIST_CAMERA_TILT = np.deg2rad(42.0)

_TABLE_COLOUR = (0.80, 0.68, 0.52, 1.0)
_FLOOR_COLOUR = (0.47, 0.50, 0.53, 1.0)
_ARM_COLOUR = (0.27, 0.28, 0.30, 1.0)
_FINGER_COLOUR = (0.42, 0.43, 0.46, 1.0)
_DRAWN_PREFIX = 'drawn/'
_SMALL_PICTURE = 160
_FLOOR_Z = -0.72


@dataclass(frozen=True, kw_only=True)
class Variation:
    """How much the looks differ from episode to episode; each figure is the largest deviation."""

    tint: float = 0.0
    """Of every colour channel of things and table, as a share."""
    brightness: float = 0.0
    """Of each light, as a share."""
    light_shift: float = 0.0
    """[m] along each axis."""
    camera_shift: float = 0.0
    """[m] along each axis of what the camera is mounted on."""
    camera_turn: float = 0.0
    """[rad] about each axis of the camera."""
    fovy_deg: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Detail:
    """How finely things are drawn."""

    cell: float
    """Size of what is left out of the drawn arms [m]."""
    squares: int
    """Along each side of a flat face; light is computed at their corners."""
    slices: int
    """Of what is round."""
    stacks: int
    """Likewise, along its axis."""


_COARSE = Detail(cell=0.01, squares=1, slices=12, stacks=2)
_FINE = Detail(cell=0.005, squares=4, slices=28, stacks=16)


LIGHTS = Variation(tint=0.12, brightness=0.25, light_shift=0.3)
"""Colours and lights differ in every episode; cameras stay where the contract has them."""


@dataclass(frozen=True, kw_only=True)
class SceneSettings:
    """What the contract leaves open."""

    objects: tuple[str, ...] = CUBES
    """Names of the objects that an episode may have, such as ``red cube``."""
    objects_on_table: int = 0
    """How many of them lie on the table, drawn from the episode's seed; 0: all of them."""
    trays: tuple[str, ...] = ('white', 'black')
    """Colours of the trays that an episode may have."""
    trays_on_table: int = 0
    """Likewise; the table has room for two."""
    variation: Variation = Variation()
    timestep_s: float = 0.002
    fovy_deg: float = 58.0
    """Vertical field of view of cameras that ``fovys_deg`` does not name."""
    fovys_deg: Mapping[str, float] = field(default_factory=dict)
    image_width: int = 320
    image_height: int = 240

    def __post_init__(self) -> None:
        for what, names, known, count in (
                ('objects', self.objects, ALL_OBJECTS, self.objects_on_table),
                ('trays', self.trays, TRAY_COLOURS, self.trays_on_table)):
            if unknown := set(names) - set(known):
                raise SceneError(f'{what}: there is no {", ".join(sorted(unknown))}; there are {", ".join(known)}')
            if len(set(names)) != len(names):
                raise SceneError(f'{what} has a name twice: {", ".join(names)}')
            if not 0 <= count <= len(names):
                raise SceneError(f'{what}_on_table is {count}; {what} names {len(names)} to choose from')
        if min(self.image_width, self.image_height) < 1:
            raise SceneError(f'images of {self.image_width} x {self.image_height} px; '
                             'both sides need at least 1')

    @property
    def detail(self) -> Detail:
        """How finely things are drawn: what a picture cannot show costs time all the same."""
        return _COARSE if max(self.image_width, self.image_height) <= _SMALL_PICTURE else _FINE

    @property
    def object_places(self) -> int:
        """Objects on the table in every episode."""
        return self.objects_on_table or len(self.objects)

    @property
    def tray_places(self) -> int:
        """Trays on the table in every episode."""
        return self.trays_on_table or len(self.trays)


def build_model(contract: RobotContract, settings: SceneSettings) -> mujoco.MjModel:
    """Compile the scene.

    Raises:
        SceneError: the contract describes a robot that is not this one.
        AssetsMissing: no robot description installed.
    """
    spec = _bare_robot()
    spec.option.timestep = settings.timestep_s
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    # Most contacts are those of things that lie still, and cost a third of every step.
    spec.option.enableflags |= mujoco.mjtEnableBit.mjENBL_SLEEP
    _set_looks(spec, settings)
    _draw_coarsely(spec, settings.detail.cell)
    place_arms(spec, contract)
    _add_surroundings(spec)
    props.add_objects(spec, settings.object_places, [thing(name).shape for name in settings.objects])
    props.add_trays(spec, settings.tray_places)
    _add_cameras(spec, contract, settings)
    return spec.compile()


def hand_from_wrist_camera() -> NDArray[np.float64]:
    """(4, 4) pose of a wrist camera's optical frame on the hand."""
    pose = np.eye(4)
    sine, cosine = np.sin(WRIST_CAMERA_TILT), np.cos(WRIST_CAMERA_TILT)
    pose[:3, :3] = np.column_stack([(0.0, -1.0, 0.0), (-sine, 0.0, -cosine), (cosine, 0.0, -sine)])
    pose[:3, 3] = WRIST_CAMERA_POSITION
    return pose


def _bare_robot() -> mujoco.MjSpec:
    spec = mujoco.MjSpec.from_file(str(assets.bimanual_viperx()))
    spec.delete(spec.body('box'))
    for superfluous in (*spec.keys, *spec.cameras):
        spec.delete(superfluous)
    # The asset counts only two groups, which would leave objects without inertia.
    spec.compiler.inertiagrouprange = [0, 5]
    return spec


def _draw_coarsely(spec: mujoco.MjSpec, cell: float) -> None:
    """Draw the arms with fewer triangles; what collides stays as it was, unseen."""
    compiled = spec.compile()
    for mesh in list(spec.meshes):
        if mesh.name == 'tabletop':
            continue
        fine = compiled.mesh(mesh.name).id
        start, first = compiled.mesh_vertadr[fine], compiled.mesh_faceadr[fine]
        vertices, triangles = coarsen(
            compiled.mesh_vert[start:start + compiled.mesh_vertnum[fine]],
            compiled.mesh_face[first:first + compiled.mesh_facenum[fine]], cell)
        spec.add_mesh(name=_DRAWN_PREFIX + mesh.name, uservert=vertices.ravel(), userface=triangles.ravel(),
                      inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL)
    for geom in list(spec.geoms):
        if geom.name.startswith('vx300s'):
            # The compiled pose is that of the mesh's inertial frame, and so are the compiled vertices.
            placed = compiled.geom(geom.name)
            geom.parent.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=_DRAWN_PREFIX + geom.meshname,
                                 pos=placed.pos, quat=placed.quat, rgba=geom.rgba, contype=0, conaffinity=0)
            geom.group = UNSEEN_GROUP


def _set_looks(spec: mujoco.MjSpec, settings: SceneSettings) -> None:
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = 0
    spec.visual.quality.numquads = settings.detail.squares
    spec.visual.quality.numslices = settings.detail.slices
    spec.visual.quality.numstacks = settings.detail.stacks
    spec.visual.global_.offwidth = settings.image_width
    spec.visual.global_.offheight = settings.image_height
    spec.visual.map.znear = 0.005
    spec.visual.headlight.ambient = [0.45, 0.45, 0.45]
    spec.visual.headlight.diffuse = [0.25, 0.25, 0.25]
    spec.visual.headlight.specular = [0.0, 0.0, 0.0]
    for light in spec.lights:
        light.castshadow = False
    for geom in spec.geoms:
        if geom.name == TABLE:
            geom.rgba = _TABLE_COLOUR
        elif geom.name.startswith('vx300s'):
            geom.rgba = _FINGER_COLOUR if 'finger' in geom.name else _ARM_COLOUR


def _add_surroundings(spec: mujoco.MjSpec) -> None:
    world = spec.worldbody
    world.add_geom(name=FLOOR, type=mujoco.mjtGeom.mjGEOM_PLANE, size=[4, 4, 0.1], pos=[0, 0.6, _FLOOR_Z],
                   rgba=_FLOOR_COLOUR)
    half = -(_FLOOR_Z + 0.03) / 2
    for x in (-0.56, 0.56):
        for y in (0.27, 0.93):
            world.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.025, 0.025, half],
                           pos=[x, y, -0.03 - half], rgba=_FINGER_COLOUR, contype=0, conaffinity=0)
    spec.add_texture(name='sky', type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
                     builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
                     rgb1=[0.86, 0.90, 0.95], rgb2=[0.60, 0.66, 0.73], width=64, height=64 * 6)


def _add_cameras(spec: mujoco.MjSpec, contract: RobotContract, settings: SceneSettings) -> None:
    if unknown := set(settings.fovys_deg) - set(contract.cameras):
        raise SceneError(f'fovys_deg names {", ".join(sorted(unknown))}; '
                         f'the contract has the cameras {", ".join(contract.cameras)}')
    for name, camera in contract.cameras.items():
        if camera.world_from_camera is not None:
            parent, pose = spec.worldbody, camera.world_from_camera.matrix
        else:
            parent = hand(spec, contract, str(camera.tf_anchor))
            pose = hand_from_wrist_camera()
        parent.add_camera(name=CAMERA_PREFIX + name, pos=pose[:3, 3],
                          quat=rotation_to_wxyz(pose[:3, :3] @ CAMERA_FROM_OPTICAL),
                          fovy=settings.fovys_deg.get(name, settings.fovy_deg))
