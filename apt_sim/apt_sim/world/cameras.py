"""Images and poses of the simulated cameras.

Rendering is off screen, through EGL, without a window system. A :class:`CameraRig` owns an OpenGL context and belongs
to the thread that created it.
"""

from dataclasses import dataclass, replace

import mujoco
import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import Camera, RobotContract
from apt_policy.core.geometry import make_pose, pose_to_quaternion, rotation_from_wxyz
from apt_policy.core.placement import Placement
from apt_sim.world.graphics import GraphicsError, open_context
from apt_sim.world.physics import Simulation
from apt_sim.world.scene import CAMERA_FROM_OPTICAL, CAMERA_PREFIX, FLOOR

# Each of these effects costs a multiple of the remaining image in software rendering.
_DISABLED_FLAGS = (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_HAZE,
                   mujoco.mjtRndFlag.mjRND_FOG)
_MAX_GEOMS = 500
# Image corners: x and y in halves of the image's sides, z in focal lengths.
_CORNERS = np.array([(-1.0, -1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, 1.0), (-1.0, 1.0, 1.0)])


@dataclass(frozen=True, kw_only=True, eq=False)
class CameraImage:
    """Rendered image with the pose that the camera had."""

    rgb: NDArray[np.uint8]
    """(H, W, 3)."""
    world_from_camera: NDArray[np.float64]
    """(4, 4), optical frame: x right, y down, z forward."""
    stamp_ns: int
    """Simulated time [ns]."""


def intrinsics(simulation: Simulation, camera: str) -> NDArray[np.float64]:
    """Return the (3, 3) pinhole matrix of a camera of the contract [px], with pixel centres at +0.5."""
    width, height = simulation.settings.image_width, simulation.settings.image_height
    fovy = np.deg2rad(simulation.model.camera(CAMERA_PREFIX + camera).fovy[0])
    focal = (height / 2) / np.tan(fovy / 2)
    return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def world_from_camera(simulation: Simulation, camera: str) -> NDArray[np.float64]:
    """Return the current (4, 4) pose of a camera's optical frame."""
    placed = simulation.data.camera(CAMERA_PREFIX + camera)
    return make_pose(placed.xmat.reshape(3, 3) @ CAMERA_FROM_OPTICAL, placed.xpos)


def parent_from_camera(simulation: Simulation, camera: str) -> NDArray[np.float64]:
    """Return the (4, 4) pose of a camera's optical frame in its mount: the world, or a hand's link."""
    mounted = simulation.model.camera(CAMERA_PREFIX + camera)
    return make_pose(rotation_from_wxyz(mounted.quat) @ CAMERA_FROM_OPTICAL, mounted.pos)


def calibrated_contract(simulation: Simulation) -> RobotContract:
    """Return the contract as calibrated in this episode, in which camera poses may be randomised.

    Poses of wrist cameras are left to TF, as on a calibrated robot.
    """
    contract = simulation.contract
    return replace(contract, cameras={name: _placed(camera, parent_from_camera(simulation, name))
                                      for name, camera in contract.cameras.items()})


def is_sky_visible(simulation: Simulation, camera: str, pose: NDArray[np.float64]) -> bool:
    """Return whether a camera may see more than the floor as background.

    Args:
        simulation: scene that the camera belongs to.
        camera: name of the camera in the contract.
        pose: (4, 4) world_from_camera.
    """
    settings, floor = simulation.settings, simulation.model.geom(FLOOR)
    focal = intrinsics(simulation, camera)[0, 0]
    rays = pose[:3, :3] @ (_CORNERS * (settings.image_width / 2, settings.image_height / 2, focal)).T
    if rays[2].max() >= 0.0 or pose[2, 3] <= floor.pos[2]:
        return True
    # The floor is convex: if it is behind all corners of the image, it is behind every pixel between them.
    ends = pose[:2, 3, None] + rays[:2] * (floor.pos[2] - pose[2, 3]) / rays[2]
    return bool((np.abs(ends - floor.pos[:2, None]) > floor.size[:2, None]).any())


def _placed(camera: Camera, pose: NDArray[np.float64]) -> Camera:
    if camera.world_from_camera is None:
        return replace(camera, ee_from_camera=None)
    offset, turn = pose_to_quaternion(pose)
    x, y, z = offset.tolist()
    qx, qy, qz, qw = turn.tolist()
    return replace(camera, world_from_camera=Placement(translation=(x, y, z), quaternion_xyzw=(qx, qy, qz, qw)))


class CameraRig:
    """Renderer for the cameras of one simulation; close it in the thread that created it."""

    def __init__(self, simulation: Simulation) -> None:
        """Open an OpenGL context.

        Raises:
            GraphicsError: OpenGL is not available; the message names the packages to install.
        """
        settings = simulation.settings
        self._simulation = simulation
        self._rect = mujoco.MjrRect(0, 0, settings.image_width, settings.image_height)
        self._upside_down = np.empty((settings.image_height, settings.image_width, 3), np.uint8)
        self._scene = mujoco.MjvScene(model=simulation.model, maxgeom=_MAX_GEOMS)
        for flag in _DISABLED_FLAGS:
            self._scene.flags[flag] = False
        self._option = mujoco.MjvOption()
        self._view = mujoco.MjvCamera()
        self._view.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._gl = open_context(settings.image_width, settings.image_height)
        try:
            self._context = mujoco.MjrContext(simulation.model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        except mujoco.FatalError as error:
            self._gl.free()
            raise GraphicsError(f'OpenGL cannot load the scene: {error}') from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)

    def render(self, camera: str) -> CameraImage:
        """Render the current image of a camera of the contract."""
        simulation, pose = self._simulation, world_from_camera(self._simulation, camera)
        # In software rendering the sky costs at least a fifth of a small image's time, visible or not.
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = is_sky_visible(simulation, camera, pose)
        self._view.fixedcamid = simulation.model.camera(CAMERA_PREFIX + camera).id
        mujoco.mjv_updateScene(simulation.model, simulation.data, self._option, None, self._view,
                               mujoco.mjtCatBit.mjCAT_ALL.value, self._scene)
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(self._upside_down, None, self._rect, self._context)
        return CameraImage(rgb=np.ascontiguousarray(self._upside_down[::-1]),
                           world_from_camera=pose, stamp_ns=simulation.time_ns)

    def close(self) -> None:
        """Free the context; further calls have no effect."""
        self._context.free()
        self._gl.free()

    def __enter__(self) -> 'CameraRig':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
