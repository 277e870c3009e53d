"""MuJoCo model of the simulated scene: two ViperX arms, a table, slots for objects and trays, cameras.

Meshes and table come from gym-aloha's description; the poses of arms, joints and fixed cameras come from the contract,
so that the two cannot disagree. The objects in the slots are selected at the start of an episode.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import mujoco
import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import RobotContract
from apt_policy.core.geometry import rotation_to_wxyz
from apt_sim.world import object_assets, robot_assets
from apt_sim.world.arms import SceneError, hand_body, place_arms
from apt_sim.world.objects import ALL_OBJECTS, CUBES, TRAY_COLOURS, object_spec

RENDERING_VERSION = 'aloha_sim 2'
"""Version of the rendering; it changes when the same scene would give other images."""
CAMERA_PREFIX = 'camera/'
TABLE = 'table'
FLOOR = 'floor'
# MuJoCo draws groups 0 to 2 by default.
HIDDEN_GROUP = 3
# MuJoCo's cameras look along -z with y up; optical frames along z with y down.
CAMERA_FROM_OPTICAL = np.diag([1.0, -1.0, -1.0])
# Pose of the wrist cameras on the hand: above it and tilted down, so that the fingertips are in the middle of the image
# and the finger rail stays at its lower edge. Position [m], tilt [rad].
WRIST_CAMERA_POSITION = (0.04, 0.0, 0.10)
WRIST_CAMERA_TILT = np.deg2rad(42.0)

# RGBA colours before domain randomisation.
_TABLE_COLOUR = (0.80, 0.68, 0.52, 1.0)
_FLOOR_COLOUR = (0.47, 0.50, 0.53, 1.0)
_ARM_COLOUR = (0.27, 0.28, 0.30, 1.0)
_FINGER_COLOUR = (0.42, 0.43, 0.46, 1.0)
_COARSE_PREFIX = 'drawn/'
# Longest side of an image that is rendered with coarse meshes [px].
_SMALL_IMAGE = 160
# Height of the floor below the table's top [m].
_FLOOR_Z = -0.72


@dataclass(frozen=True, kw_only=True)
class RandomizationConfig:
    """Ranges of the domain randomisation; each value is the largest deviation, sampled per episode."""

    tint: float = 0.0
    """Relative deviation of each colour channel of objects, trays and table."""
    brightness: float = 0.0
    """Relative deviation of each light's intensity."""
    light_shift: float = 0.0
    """Displacement of each light along each axis [m]."""
    camera_shift: float = 0.0
    """Displacement of each camera along each axis of its mount [m]."""
    camera_turn: float = 0.0
    """Rotation of each camera about each of its axes [rad]."""
    fovy_deg: float = 0.0
    """Deviation of each camera's vertical field of view [deg]."""


@dataclass(frozen=True, kw_only=True)
class RenderQuality:
    """Level of detail of the rendered geometry."""

    cell: float
    """Size of the details left out of the arms' meshes [m]."""
    squares: int
    """Subdivisions of each side of a flat face; light is computed at their corners."""
    slices: int
    """Subdivisions of round shapes around their axis."""
    stacks: int
    """Subdivisions of round shapes along their axis."""


_COARSE = RenderQuality(cell=0.01, squares=1, slices=12, stacks=2)
_FINE = RenderQuality(cell=0.005, squares=4, slices=28, stacks=16)


LIGHT_RANDOMIZATION = RandomizationConfig(tint=0.12, brightness=0.25, light_shift=0.3)
"""Randomised colours and lights; cameras stay at the poses of the contract."""


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """Configuration of the scene beyond the robot contract."""

    objects: tuple[str, ...] = CUBES
    """Names of the objects that an episode may have, such as ``red cube``."""
    objects_on_table: int = 0
    """Number of objects on the table, sampled from the episode's seed; 0 puts all of them there."""
    trays: tuple[str, ...] = ('white', 'black')
    """Colours of the trays that an episode may have."""
    trays_on_table: int = 0
    """Number of trays on the table, sampled from the episode's seed; 0 puts all there. There is room for two."""
    variation: RandomizationConfig = RandomizationConfig()
    """Domain randomisation of each episode."""
    timestep_s: float = 0.002
    """Duration of one physics step [s]."""
    fovy_deg: float = 58.0
    """Vertical field of view of cameras that ``fovys_deg`` does not name [deg]."""
    fovys_deg: Mapping[str, float] = field(default_factory=dict)
    """Vertical field of view by camera [deg]."""
    image_width: int = 320
    """Width of the images [px]."""
    image_height: int = 240
    """Height of the images [px]."""

    def __post_init__(self) -> None:
        for what, names, known, count in (
                ('objects', self.objects, ALL_OBJECTS, self.objects_on_table),
                ('trays', self.trays, TRAY_COLOURS, self.trays_on_table)):
            if unknown := set(names) - set(known):
                raise SceneError(f'{what}: unknown {", ".join(sorted(unknown))}; expected some of {", ".join(known)}')
            if len(set(names)) != len(names):
                raise SceneError(f'{what} has duplicate names: {", ".join(names)}')
            if not 0 <= count <= len(names):
                raise SceneError(f'{what}_on_table is {count}; expected 0 to {len(names)}, the number of {what}')
        if min(self.image_width, self.image_height) < 1:
            raise SceneError(f'image size is {self.image_width} x {self.image_height} px; expected at least 1 x 1')

    @property
    def render_quality(self) -> RenderQuality:
        """Level of detail for the image size: details below a pixel cost time and are not visible."""
        return _COARSE if max(self.image_width, self.image_height) <= _SMALL_IMAGE else _FINE

    @property
    def object_slots(self) -> int:
        """Number of objects on the table in every episode."""
        return self.objects_on_table or len(self.objects)

    @property
    def tray_slots(self) -> int:
        """Number of trays on the table in every episode."""
        return self.trays_on_table or len(self.trays)


def build_model(contract: RobotContract, settings: SceneConfig) -> mujoco.MjModel:
    """Compile the scene.

    Raises:
        SceneError: the contract describes another robot.
        MissingAssetsError: the robot description is not installed.
    """
    spec = _load_robot()
    spec.option.timestep = settings.timestep_s
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    # Most contacts are those of objects at rest, and would cost a third of every step.
    spec.option.enableflags |= mujoco.mjtEnableBit.mjENBL_SLEEP
    _set_appearance(spec, settings)
    _add_coarse_meshes(spec, settings.render_quality.cell)
    place_arms(spec, contract)
    _add_surroundings(spec)
    object_assets.add_objects(spec, settings.object_slots, [object_spec(name).shape for name in settings.objects])
    object_assets.add_trays(spec, settings.tray_slots)
    _add_cameras(spec, contract, settings)
    return spec.compile()


def hand_from_wrist_camera() -> NDArray[np.float64]:
    """Return the (4, 4) pose of a wrist camera's optical frame on the hand."""
    pose = np.eye(4)
    sine, cosine = np.sin(WRIST_CAMERA_TILT), np.cos(WRIST_CAMERA_TILT)
    pose[:3, :3] = np.column_stack([(0.0, -1.0, 0.0), (-sine, 0.0, -cosine), (cosine, 0.0, -sine)])
    pose[:3, 3] = WRIST_CAMERA_POSITION
    return pose


def _load_robot() -> mujoco.MjSpec:
    spec = mujoco.MjSpec.from_file(str(robot_assets.bimanual_viperx()))
    spec.delete(spec.body('box'))
    for superfluous in (*spec.keys, *spec.cameras):
        spec.delete(superfluous)
    # The asset restricts inertia to two groups, which would leave objects without inertia.
    spec.compiler.inertiagrouprange = [0, 5]
    return spec


def _add_coarse_meshes(spec: mujoco.MjSpec, cell: float) -> None:
    """Add coarser meshes of the arms for drawing; the original meshes stay for collisions, hidden."""
    compiled = spec.compile()
    for mesh in list(spec.meshes):
        if mesh.name == 'tabletop':
            continue
        fine = compiled.mesh(mesh.name).id
        start, first = compiled.mesh_vertadr[fine], compiled.mesh_faceadr[fine]
        vertices, triangles = robot_assets.coarsen(
            compiled.mesh_vert[start:start + compiled.mesh_vertnum[fine]],
            compiled.mesh_face[first:first + compiled.mesh_facenum[fine]], cell)
        spec.add_mesh(name=_COARSE_PREFIX + mesh.name, uservert=vertices.ravel(), userface=triangles.ravel(),
                      inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL)
    for geom in list(spec.geoms):
        if geom.name.startswith('vx300s'):
            # The compiled pose is that of the mesh's inertial frame, and so are the compiled vertices.
            placed = compiled.geom(geom.name)
            geom.parent.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=_COARSE_PREFIX + geom.meshname,
                                 pos=placed.pos, quat=placed.quat, rgba=geom.rgba, contype=0, conaffinity=0)
            geom.group = HIDDEN_GROUP


def _set_appearance(spec: mujoco.MjSpec, settings: SceneConfig) -> None:
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = 0
    spec.visual.quality.numquads = settings.render_quality.squares
    spec.visual.quality.numslices = settings.render_quality.slices
    spec.visual.quality.numstacks = settings.render_quality.stacks
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


def _add_cameras(spec: mujoco.MjSpec, contract: RobotContract, settings: SceneConfig) -> None:
    if unknown := set(settings.fovys_deg) - set(contract.cameras):
        raise SceneError(f'fovys_deg has unknown cameras {", ".join(sorted(unknown))}; '
                         f'expected those of the contract: {", ".join(contract.cameras)}')
    for name, camera in contract.cameras.items():
        if camera.world_from_camera is not None:
            parent, pose = spec.worldbody, camera.world_from_camera.matrix
        else:
            parent = hand_body(spec, contract, str(camera.tf_anchor))
            pose = hand_from_wrist_camera()
        parent.add_camera(name=CAMERA_PREFIX + name, pos=pose[:3, 3],
                          quat=rotation_to_wxyz(pose[:3, :3] @ CAMERA_FROM_OPTICAL),
                          fovy=settings.fovys_deg.get(name, settings.fovy_deg))
