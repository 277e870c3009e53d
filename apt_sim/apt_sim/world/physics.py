"""Physics of the simulation: arms that track commands, objects that can be pushed and grasped.

Deterministic: the same seed and commands give the same episode, as fast as the machine allows. Independent of ROS,
wall-clock time and rendering.
"""

from collections.abc import Mapping

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from apt_policy.core.contract import RobotContract
from apt_policy.core.geometry import make_pose, rotation_to_wxyz
from apt_sim.world.arms import link_names
from apt_sim.world.domain_randomizer import DomainRandomizer, SceneObjects, sample_scene_objects
from apt_sim.world.layout import Layout, sample_layout
from apt_sim.world.motors import FINGER_OPEN, FINGER_SQUEEZE, ArmMotors, JointReadings
from apt_sim.world.object_assets import OBJECT_PREFIX, TRAY_PREFIX
from apt_sim.world.objects import object_spec
from apt_sim.world.scene import SceneConfig, build_model

PHYSICS_VERSION = 'aloha_sim 2'
"""Version of the physics; it changes when the same seed and commands would give another episode."""
# Random streams of a seed besides that of the layout, so that the layout does not depend on them.
_OBJECTS_STREAM, _APPEARANCE_STREAM = 1, 2


class Simulation:
    """One simulated ALOHA."""

    def __init__(self, contract: RobotContract, settings: SceneConfig | None = None, *,
                 seed: int = 0) -> None:
        """Build the scene and start an episode.

        Args:
            contract: description of the robot.
            settings: scene; None takes the default one.
            seed: seed of the first episode.

        Raises:
            SceneError: the contract or the scene does not fit the simulated robot.
            LayoutError: the objects or trays do not fit on the table.
            MissingAssetsError: the robot description is not installed.
        """
        self.contract = contract
        self.settings = settings or SceneConfig()
        self.model = build_model(contract, self.settings)
        self.data = mujoco.MjData(self.model)
        self._arms = {name: ArmMotors(self.model, name, arm, 1.0 / contract.control_rate_hz)
                      for name, arm in contract.arms.items()}
        self.links = {name: link_names(self.model, name, arm.joints) for name, arm in contract.arms.items()}
        """Names of the links that the joints of each arm carry, by arm."""
        # Needed in every control period; a look-up by name costs as much as reading the pose.
        self._objects = [self.model.body(f'{OBJECT_PREFIX}{slot}').id for slot in range(self.settings.object_slots)]
        self._trays = [self.model.body(f'{TRAY_PREFIX}{slot}').id for slot in range(self.settings.tray_slots)]
        self._step_ns = round(self.settings.timestep_s * 1e9)
        self._steps = self._begun = 0
        self._randomizer = DomainRandomizer(self.model, self.settings.variation)
        self.scene_objects = SceneObjects(objects=(), trays=())
        """Objects and trays on the table in this episode."""
        self.layout = self.reset(seed)

    @property
    def time_ns(self) -> int:
        """Simulated time since construction [ns]; a reset does not set it back."""
        return self._steps * self._step_ns

    @property
    def _episode_s(self) -> float:
        """Simulated time since the reset [s]; results derived from it are equal to the bit in every run."""
        return (self._steps - self._begun) * self.settings.timestep_s

    @property
    def step_ns(self) -> int:
        """Duration of one physics step [ns]."""
        return self._step_ns

    @property
    def period_steps(self) -> int:
        """Number of physics steps in a control period, at least one."""
        return max(1, round(1e9 / self.contract.control_rate_hz / self._step_ns))

    def reset(self, seed: int) -> Layout:
        """Start an episode with the arms in the contract's start pose.

        Args:
            seed: seed of the objects, their layout and their appearance.

        Returns:
            Poses of the objects and trays.
        """
        self.scene_objects = sample_scene_objects(self.settings, np.random.default_rng((seed, _OBJECTS_STREAM)))
        self.layout = sample_layout(lengths=[object_spec(name).shape.length for name in self.scene_objects.objects],
                                    trays=len(self.scene_objects.trays), random=np.random.default_rng(seed))
        self._begun = self._steps
        mujoco.mj_resetData(self.model, self.data)
        for motors in self._arms.values():
            motors.reset(self.data)
        self._randomizer.randomize(self.scene_objects, np.random.default_rng((seed, _APPEARANCE_STREAM)))
        self._lay_out(self.layout)
        mujoco.mj_forward(self.model, self.data)
        return self.layout

    def step(self, count: int = 1) -> None:
        """Advance by ``count`` physics steps."""
        while count > 0:
            # Set points do not change within a control period; computing them at every step would cost time.
            steps = min(count, self.period_steps)
            for motors in self._arms.values():
                motors.apply_commands(self.data, self._episode_s)
            mujoco.mj_step(self.model, self.data, steps)
            self._steps += steps
            count -= steps

    def command_joints(self, arm: str, joints: NDArray[np.float64]) -> None:
        """Command joint positions (J,) within the joint limits [rad]; they hold until the next command."""
        self._arms[arm].servo.set_command(joints, self._episode_s)

    def command_finger(self, arm: str, position: float) -> None:
        """Command the position of the fingers [m]; it holds until the next command."""
        self._arms[arm].finger_command = float(np.clip(position, FINGER_SQUEEZE, FINGER_OPEN))

    def set_static_state(self, joints: Mapping[str, NDArray[np.float64]], fingers: Mapping[str, float],
                         held: Mapping[str, NDArray[np.float64]]) -> None:
        """Set the state of a static scene for rendering, without simulating a motion.

        Args:
            joints: joint positions (J,) by arm [rad].
            fingers: position of the left finger by arm [m].
            held: (4, 4) world_from_object by name.
        """
        for name, positions in joints.items():
            self._arms[name].set_positions(self.data, positions, fingers[name])
        for name, pose in held.items():
            quaternion = rotation_to_wxyz(pose[:3, :3])
            slot = self.scene_objects.objects.index(name)
            self.data.joint(f'{OBJECT_PREFIX}{slot}').qpos = [*pose[:3, 3], *quaternion]
        mujoco.mj_forward(self.model, self.data)

    def readings(self, arm: str) -> JointReadings:
        """Return the current encoder readings of an arm."""
        return self._arms[arm].readings(self.data)

    def finger(self, arm: str) -> float:
        """Return the current position of an arm's left finger [m]."""
        return self._arms[arm].finger(self.data)

    def world_from_ee(self, arm: str) -> NDArray[np.float64]:
        """Return the (4, 4) pose of an arm's end-effector."""
        site = self._arms[arm].site
        return make_pose(self.data.site_xmat[site].reshape(3, 3), self.data.site_xpos[site])

    def world_from_object(self, name: str) -> NDArray[np.float64]:
        """Return the (4, 4) pose of the centre of an object of this episode."""
        return self._world_from_body(self._objects[self.scene_objects.objects.index(name)])

    def world_from_tray(self, colour: str) -> NDArray[np.float64]:
        """Return the (4, 4) pose of a tray of this episode; the origin is the centre of its underside."""
        return self._world_from_body(self._trays[self.scene_objects.trays.index(colour)])

    def touching(self) -> set[tuple[str, str]]:
        """Return the pairs of bodies in contact.

        MuJoCo does not compute contacts between sleeping bodies.

        Returns:
            Pairs of sorted names; objects have their own names, floor and table are ``world``.
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
        if not body.startswith(OBJECT_PREFIX):
            return body
        return self.scene_objects.objects[int(body.removeprefix(OBJECT_PREFIX))]

    def _lay_out(self, layout: Layout) -> None:
        for slot, (position, yaw) in enumerate(zip(layout.objects, layout.yaws, strict=True)):
            quaternion = Rotation.from_euler('z', yaw).as_quat(scalar_first=True)
            self.data.joint(f'{OBJECT_PREFIX}{slot}').qpos = [*position, *quaternion]
        for slot, position in enumerate(layout.trays):
            self.data.mocap_pos[self.model.body_mocapid[self._trays[slot]]] = position
