"""The moving simulation: arms that follow commands, objects that can be pushed and grasped.

Plain and deterministic: the same seed and the same commands give the same episode, as fast as the
machine allows. It knows nothing of ROS, of wall-clock time or of pictures.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from apt_policy.core.contract import Arm, RobotContract
from apt_policy.core.geometry import make_pose, rotation_to_wxyz
from apt_sim.world.arms import SERVO_DAMPING_S, asset_name, ee_site, link_names
from apt_sim.world.dressing import Cast, Dresser, draw_cast
from apt_sim.world.layout import Layout, draw_layout
from apt_sim.world.props import OBJECT_PREFIX, TRAY_PREFIX
from apt_sim.world.scene import SceneSettings, build_model
from apt_sim.world.servo import Servo
from apt_sim.world.things import thing

PHYSICS = 'aloha_sim 2'
"""Changes when the same seed and commands would give another episode."""
# Where the fingertips touch, and the widest opening [m]; commands may squeeze a little further.
FINGER_CLOSED, FINGER_OPEN = 0.0224, 0.057
FINGER_SQUEEZE = 0.021
# What a seed draws beside the layout; the layout of a seed does not depend on it.
_CAST, _LOOKS = 1, 2


@dataclass(frozen=True, kw_only=True, eq=False)
class JointReadings:
    """What the encoders of one arm say."""

    position: NDArray[np.float64]
    """(J,) in the contract's order [rad]."""
    velocity: NDArray[np.float64]
    """(J,) [rad/s]."""
    effort: NDArray[np.float64]
    """(J,) [N m]."""
    finger: float
    """Left finger [m]; the right one mirrors it."""
    finger_velocity: float
    """[m/s]."""


class Simulation:
    """One simulated ALOHA."""

    def __init__(self, contract: RobotContract, settings: SceneSettings | None = None, *,
                 seed: int = 0) -> None:
        """Build the scene and start an episode.

        Raises:
            SceneError, LayoutError, AssetsMissing: see :func:`build_model`, :func:`draw_layout`.
        """
        self.contract = contract
        self.settings = settings or SceneSettings()
        self.model = build_model(contract, self.settings)
        self.data = mujoco.MjData(self.model)
        self._arms = {name: _Motors(self.model, name, arm, 1.0 / contract.control_rate_hz)
                      for name, arm in contract.arms.items()}
        self.links = {name: link_names(self.model, name, arm.joints) for name, arm in contract.arms.items()}
        """By arm, the names of the links that its joints carry."""
        # Asked for at every control period, and looking a name up costs as much as the answer.
        self._objects = [self.model.body(f'{OBJECT_PREFIX}{place}').id for place in range(self.settings.object_places)]
        self._trays = [self.model.body(f'{TRAY_PREFIX}{place}').id for place in range(self.settings.tray_places)]
        self._step_ns = round(self.settings.timestep_s * 1e9)
        self._steps = self._begun = 0
        self._dresser = Dresser(self.model, self.settings.variation)
        self.cast = Cast(objects=(), trays=())
        """What lies on the table in this episode."""
        self.layout = self.reset(seed)

    @property
    def time_ns(self) -> int:
        """Simulated time since construction; a reset does not turn it back."""
        return self._steps * self._step_ns

    @property
    def _episode_s(self) -> float:
        """Since the reset: what is computed from it is the same to the last bit in every run of an episode."""
        return (self._steps - self._begun) * self.settings.timestep_s

    @property
    def step_ns(self) -> int:
        """Duration of one physics step."""
        return self._step_ns

    @property
    def period_steps(self) -> int:
        """Physics steps of a control period, at least one."""
        return max(1, round(1e9 / self.contract.control_rate_hz / self._step_ns))

    def reset(self, seed: int) -> Layout:
        """Begin an episode: arms in the contract's start pose, things and looks as ``seed`` has them."""
        self.cast = draw_cast(self.settings, np.random.default_rng((seed, _CAST)))
        self.layout = draw_layout(lengths=[thing(name).shape.length for name in self.cast.objects],
                                  trays=len(self.cast.trays), random=np.random.default_rng(seed))
        self._begun = self._steps
        mujoco.mj_resetData(self.model, self.data)
        for motors in self._arms.values():
            motors.restart(self.data)
        self._dresser.dress(self.cast, np.random.default_rng((seed, _LOOKS)))
        self._lay_out(self.layout)
        mujoco.mj_forward(self.model, self.data)
        return self.layout

    def step(self, count: int = 1) -> None:
        """Advance by ``count`` physics steps."""
        while count > 0:
            # No set point need change within a control period, and asking at every step would cost time.
            steps = min(count, self.period_steps)
            for motors in self._arms.values():
                motors.drive(self.data, self._episode_s)
            mujoco.mj_step(self.model, self.data, steps)
            self._steps += steps
            count -= steps

    def command_joints(self, arm: str, joints: NDArray[np.float64]) -> None:
        """Position command (J,) within the joint limits [rad], kept until the next one."""
        self._arms[arm].servo.accept(joints, self._episode_s)

    def command_finger(self, arm: str, position: float) -> None:
        """Position command of the fingers [m], kept until the next one."""
        self._arms[arm].finger_command = float(np.clip(position, FINGER_SQUEEZE, FINGER_OPEN))

    def pose_still(self, joints: Mapping[str, NDArray[np.float64]], fingers: Mapping[str, float],
                   held: Mapping[str, NDArray[np.float64]]) -> None:
        """Put everything where it shall be in a picture; what would happen next is not asked for.

        Args:
            joints: (J,) of arms by name [rad].
            fingers: left finger of arms by name [m].
            held: (4, 4) world poses of objects by name.
        """
        for name, positions in joints.items():
            self._arms[name].put(self.data, positions, fingers[name])
        for name, pose in held.items():
            quaternion = rotation_to_wxyz(pose[:3, :3])
            self.data.joint(f'{OBJECT_PREFIX}{self.cast.objects.index(name)}').qpos = [*pose[:3, 3], *quaternion]
        mujoco.mj_forward(self.model, self.data)

    def readings(self, arm: str) -> JointReadings:
        """The arm's encoders now."""
        return self._arms[arm].readings(self.data)

    def finger(self, arm: str) -> float:
        """Of the readings, the left finger alone [m]."""
        return self._arms[arm].finger(self.data)

    def world_from_ee(self, arm: str) -> NDArray[np.float64]:
        """(4, 4) pose of an arm's end-effector."""
        site = self._arms[arm].site
        return make_pose(self.data.site_xmat[site].reshape(3, 3), self.data.site_xpos[site])

    def world_from_base(self, arm: str) -> NDArray[np.float64]:
        """(4, 4) pose of the base of an arm."""
        return self._world_from_body(self.model.body(asset_name(arm)).id)

    def world_from_link(self, arm: str, link: str) -> NDArray[np.float64]:
        """(4, 4) pose of a link by its URDF name."""
        return self._world_from_body(self.model.body(f'{asset_name(arm)}/{link}').id)

    def world_from_object(self, name: str) -> NDArray[np.float64]:
        """(4, 4) pose of the centre of an object that lies on the table in this episode."""
        return self._world_from_body(self._objects[self.cast.objects.index(name)])

    def world_from_tray(self, colour: str) -> NDArray[np.float64]:
        """(4, 4) pose of the centre of the underside of one of this episode's trays."""
        return self._world_from_body(self._trays[self.cast.trays.index(colour)])

    def touching(self) -> set[tuple[str, str]]:
        """Pairs of bodies in contact, each pair's names sorted; objects by their names, floor and table as world.

        Contacts of what lies still and sleeps are not computed.
        """
        pairs = set()
        for contact in self.data.contact[:self.data.ncon]:
            bodies = (self.model.geom_bodyid[geom] for geom in contact.geom)
            first, second = sorted(self._name_of(self.model.body(body).name) for body in bodies)
            pairs.add((first, second))
        return pairs

    def _world_from_body(self, body: int) -> NDArray[np.float64]:
        return make_pose(self.data.xmat[body].reshape(3, 3), self.data.xpos[body])

    def _name_of(self, body: str) -> str:
        return self.cast.objects[int(body.removeprefix(OBJECT_PREFIX))] if body.startswith(OBJECT_PREFIX) else body

    def _lay_out(self, layout: Layout) -> None:
        for place, (position, yaw) in enumerate(zip(layout.objects, layout.yaws, strict=True)):
            quaternion = Rotation.from_euler('z', yaw).as_quat(scalar_first=True)
            self.data.joint(f'{OBJECT_PREFIX}{place}').qpos = [*position, *quaternion]
        for place, position in enumerate(layout.trays):
            self.data.mocap_pos[self.model.body_mocapid[self._trays[place]]] = position


class _Motors:
    """Addresses of one arm's joints and actuators, and its commands."""

    def __init__(self, model: mujoco.MjModel, name: str, arm: Arm, period_s: float) -> None:
        prefix = asset_name(name)
        joints = [model.joint(f'{prefix}/{joint}') for joint in arm.joints]
        fingers = [model.joint(f'{prefix}/{joint}') for joint in ('left_finger', 'right_finger')]
        drives = {model.actuator_trnid[k, 0]: k for k in range(model.nu)}
        self._qpos = np.array([joint.qposadr[0] for joint in joints])
        self._dofs = np.array([joint.dofadr[0] for joint in joints])
        self._actuators = np.array([drives[joint.id] for joint in joints])
        self._finger_qpos = np.array([finger.qposadr[0] for finger in fingers])
        self._finger_dofs = np.array([finger.dofadr[0] for finger in fingers])
        self._finger_actuators = np.array([drives[finger.id] for finger in fingers])
        self._start = np.array(arm.start)
        self.site = model.site(ee_site(name)).id
        self.finger_command = FINGER_OPEN
        self.servo = Servo(lower=np.array(arm.joint_lower), upper=np.array(arm.joint_upper),
                           velocity=arm.joint_velocity, damping_s=SERVO_DAMPING_S, period_s=period_s)

    def restart(self, data: mujoco.MjData) -> None:
        self.finger_command = FINGER_OPEN
        self.servo.settle(self._start)
        self.put(data, self._start, FINGER_OPEN)

    def put(self, data: mujoco.MjData, joints: NDArray[np.float64], finger: float) -> None:
        data.qpos[self._qpos] = joints
        data.qpos[self._finger_qpos] = (finger, -finger)

    def drive(self, data: mujoco.MjData, now_s: float) -> None:
        data.ctrl[self._actuators] = self.servo.set_point(now_s)
        data.ctrl[self._finger_actuators] = (self.finger_command, -self.finger_command)

    def finger(self, data: mujoco.MjData) -> float:
        return float(data.qpos[self._finger_qpos[0]])

    def readings(self, data: mujoco.MjData) -> JointReadings:
        return JointReadings(
            position=data.qpos[self._qpos], velocity=data.qvel[self._dofs],
            effort=data.actuator_force[self._actuators],
            finger=self.finger(data),
            finger_velocity=float(data.qvel[self._finger_dofs[0]]))
