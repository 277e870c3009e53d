"""Motors of one arm: position commands in, MuJoCo actuator set points and encoder readings out."""

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import Arm
from apt_sim.world.arms import SERVO_DAMPING_S, asset_name, ee_site

# Where the fingertips touch, and the widest opening [m]; commands may squeeze a little further.
FINGER_CLOSED, FINGER_OPEN = 0.0224, 0.057
FINGER_SQUEEZE = 0.021
# A command stream has ended when the next command is this many periods late. Dropping the feedforward earlier jerks
# the hand by a centimetre at every scheduling delay of a busy machine, and held objects slip. The half period keeps
# the comparison away from a command's arrival, so that rounding does not decide it.
_STREAM_TIMEOUT_PERIODS = 4.5
# Arrival times jitter too much to divide by, unless a command is so late that others were lost.
_LATE_PERIODS = 1.5


@dataclass(frozen=True, kw_only=True, eq=False)
class JointReadings:
    """Encoder readings of one arm."""

    position: NDArray[np.float64]
    """(J,) in the contract's joint order [rad]."""
    velocity: NDArray[np.float64]
    """(J,) [rad/s]."""
    effort: NDArray[np.float64]
    """(J,) [N m]."""
    finger: float
    """Position of the left finger [m]; the right one mirrors it."""
    finger_velocity: float
    """Velocity of the left finger [m/s]."""


class Servo:
    """Joint servos of one arm, with velocity feedforward derived from the command stream.

    A motor that only tracks its command trails a moving one, so the real servos are fed the commanded velocity.
    """

    def __init__(self, *, lower: NDArray[np.float64], upper: NDArray[np.float64], velocity: float,
                 damping_s: float, period_s: float) -> None:
        """Start at zero joint angles, clipped to the limits.

        Args:
            lower: (J,) lower joint limits [rad].
            upper: (J,) upper joint limits [rad].
            velocity: joint velocity limit [rad/s].
            damping_s: velocity feedback of the motors as a share of their stiffness [s].
            period_s: nominal period of the command stream [s]; arrival times jitter too much to divide by.
        """
        self._lower, self._upper = lower, upper
        # The first term cancels the feedback; a command that stands for a period is half of it old on average.
        self._lead_s = damping_s + period_s / 2
        self._velocity_limit = velocity
        self._period_s = period_s
        self._command = np.clip(np.zeros_like(lower), lower, upper)
        self._led = self._command
        self._since_s = -np.inf

    def reset(self, joints: NDArray[np.float64]) -> None:
        """Drop the command stream and hold ``joints`` (J,) [rad]."""
        self._command = np.asarray(joints, np.float64).copy()
        self._since_s = -np.inf

    def set_command(self, joints: NDArray[np.float64], now_s: float) -> None:
        """Set the position command (J,) [rad] that arrived at ``now_s``."""
        elapsed_s = now_s - self._since_s
        streaming = elapsed_s <= _STREAM_TIMEOUT_PERIODS * self._period_s
        late = elapsed_s > _LATE_PERIODS * self._period_s
        step = np.asarray(joints, np.float64) - self._command
        velocity = step / (elapsed_s if late else self._period_s) if streaming else np.zeros_like(step)
        self._command = self._command + step
        lead = self._lead_s * np.clip(velocity, -self._velocity_limit, self._velocity_limit)
        self._led = np.clip(self._command + lead, self._lower, self._upper)
        self._since_s = now_s

    def set_point(self, now_s: float) -> NDArray[np.float64]:
        """Return the set points (J,) of the position controllers at ``now_s`` [rad]."""
        ended = now_s - self._since_s > _STREAM_TIMEOUT_PERIODS * self._period_s
        return self._command if ended else self._led


class ArmMotors:
    """Joints and actuators of one arm in a MuJoCo model, with its current commands."""

    def __init__(self, model: mujoco.MjModel, name: str, arm: Arm, period_s: float) -> None:
        """Look up the addresses of the arm's joints, actuators and end-effector site.

        Args:
            model: compiled scene.
            name: arm of the contract.
            arm: description of that arm.
            period_s: control period [s].
        """
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
        """Id of the end-effector's site."""
        self.finger_command = FINGER_OPEN
        """Commanded position of the left finger [m]."""
        self.servo = Servo(lower=np.array(arm.joint_lower), upper=np.array(arm.joint_upper),
                           velocity=arm.joint_velocity, damping_s=SERVO_DAMPING_S, period_s=period_s)

    def reset(self, data: mujoco.MjData) -> None:
        """Put the arm into the contract's start pose with open fingers."""
        self.finger_command = FINGER_OPEN
        self.servo.reset(self._start)
        self.set_positions(data, self._start, FINGER_OPEN)

    def set_positions(self, data: mujoco.MjData, joints: NDArray[np.float64], finger: float) -> None:
        """Set joint positions (J,) [rad] and the left finger's position [m] without simulating a motion."""
        data.qpos[self._qpos] = joints
        data.qpos[self._finger_qpos] = (finger, -finger)

    def apply_commands(self, data: mujoco.MjData, now_s: float) -> None:
        """Write the actuators' set points at ``now_s`` [s]."""
        data.ctrl[self._actuators] = self.servo.set_point(now_s)
        data.ctrl[self._finger_actuators] = (self.finger_command, -self.finger_command)

    def finger(self, data: mujoco.MjData) -> float:
        """Return the position of the left finger [m]."""
        return float(data.qpos[self._finger_qpos[0]])

    def readings(self, data: mujoco.MjData) -> JointReadings:
        """Return the encoder readings."""
        return JointReadings(
            position=data.qpos[self._qpos], velocity=data.qvel[self._dofs],
            effort=data.actuator_force[self._actuators],
            finger=self.finger(data),
            finger_velocity=float(data.qvel[self._finger_dofs[0]]))
