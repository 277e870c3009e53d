"""Bridge from targets of one end-effector to commands of its joints, or to a reason to hold.

If anything is wrong, the outcome of a tick is a :class:`Hold` and nothing is sent: the driver then keeps
its last command, which is the meaning of "hold" on a ViperX (an arm that is sent its own measured pose sags).
The caller provides the time, messages and topics.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apt_control.kinematics import ArmKinematics
from apt_control.solver import ArmSolver
from apt_policy.core.contract import Arm, RobotContract
from apt_policy.core.geometry import invert_pose, pose_from_quaternion
from apt_policy.core.gripper import opening_from_reading, reading_from_opening
from apt_policy.core.safety import Clamp, SafetyFilter
from apt_policy.core.sample import ArmState, Hold, HoldReason

# Joints cannot exceed their velocity limit; a reading that does is another episode or a broken encoder.
_JUMP_FACTOR = 2.0
_JUMP_SLACK_RAD = 0.1


@dataclass(frozen=True, kw_only=True)
class BridgeConfig:
    """Thresholds of the bridge that the contract does not set."""

    target_timeout_s: float = 0.2
    """Age from which a target is no longer followed [s]."""
    following_error_rad: float = 0.5
    """Distance of a joint from its command that means that something stopped or moved it [rad]."""
    position_tolerance: float = 0.005
    """Position error up to which a pose counts as reachable [m]."""
    rotation_tolerance: float = 0.1
    """Rotation error up to which a pose counts as reachable [rad]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class JointCommand:
    """Command for the driver of one arm."""

    joints: NDArray[np.float64]
    """Joint positions (J,) in the contract's order [rad]."""
    gripper: float
    """Gripper command in the unit of the contract's ``gripper_command``."""
    position_error: float
    """Distance between the target and the pose that the joints reach [m]."""
    rotation_error: float
    """Angle between the target and the pose that the joints reach [rad]."""
    reachable: bool
    """True if both errors are within the tolerances."""
    clamps: Clamp
    """Changes that the safety filter made to the target."""


class ArmBridge:
    """Bridge of one arm."""

    def __init__(self, contract: RobotContract, name: str, config: BridgeConfig | None = None) -> None:
        """Prepare the solver and the safety filter of one arm.

        Args:
            contract: contract of the robot.
            name: name of the arm in the contract.
            config: thresholds; the defaults if None.

        Raises:
            KinematicsError: the contract has no chain for the arm.
        """
        self._contract, self._name = contract, name
        self._arm: Arm = contract.arms[name]
        self._config = config or BridgeConfig()
        self._world_from_base = self._arm.world_from_base.matrix
        self._base_from_world = invert_pose(self._world_from_base)
        self._kinematics = ArmKinematics(name, self._arm)
        self._solver = ArmSolver(self._kinematics, self._arm, contract.safety,
                                 period_s=1.0 / contract.control_rate_hz)
        self._safety = SafetyFilter(contract)
        self.warnings = self._safety.warnings
        """Sentences about safety limits that the contract does not set."""
        self._joints: _Reading | None = None
        self._joints_fault = ''
        self._target: _Target | Hold = Hold(reason=HoldReason.MISSING_STREAM, detail=f'{name}: no target yet')
        self._gripper: float | None = None
        self._opening: float | None = None
        self._other_publishers = ''
        self._command: JointCommand | None = None
        self._now_ns = 0

    def update_joint_state(self, positions: NDArray[np.float64], gripper: float, now_ns: int) -> None:
        """Store measured joints.

        Args:
            positions: (J,) finite joint positions [rad].
            gripper: finite reading of the gripper's joint.
            now_ns: time of the reading [ns].
        """
        before = self._joints
        self._joints = _Reading(positions=positions, gripper=gripper, taken_ns=now_ns)
        self._joints_fault = ''
        if before is not None:
            elapsed_s = max(now_ns - before.taken_ns, 0) / 1e9
            possible = _JUMP_FACTOR * self._arm.joint_velocity * elapsed_s + _JUMP_SLACK_RAD
            if np.abs(positions - before.positions).max() > possible:
                self._reset_motion()

    def report_joint_state_fault(self, detail: str) -> None:
        """Report that the newest joint state cannot be used; the arm holds until a good one comes."""
        self._joints_fault = detail

    def set_target(self, frame: str, position: NDArray[np.float64], quaternion_xyzw: NDArray[np.float64],
                    now_ns: int) -> None:
        """Set the target pose.

        Args:
            frame: frame of the pose; must be the arm's base frame.
            position: (3,) [m].
            quaternion_xyzw: (4,) unit quaternion.
            now_ns: time of the target [ns].
        """
        if frame != self._arm.base_frame:
            self._target = Hold(reason=HoldReason.BAD_INPUT, detail=(
                f'{self._name}: target in frame {frame!r}, expected {self._arm.base_frame!r}'))
        elif not (np.isfinite(position).all() and np.isfinite(quaternion_xyzw).all()):
            self._target = Hold(reason=HoldReason.NON_FINITE,
                                detail=f'{self._name}: the target is not finite')
        elif abs(norm := float(np.linalg.norm(quaternion_xyzw)) - 1.0) > 0.01:
            self._target = Hold(reason=HoldReason.BAD_INPUT, detail=(
                f'{self._name}: quaternion of the target has length {norm + 1.0:.3f}, expected 1'))
        else:
            self.set_target_pose(pose_from_quaternion(position, quaternion_xyzw), now_ns)

    def set_target_pose(self, base_from_ee: NDArray[np.float64], now_ns: int) -> None:
        """Set the target pose (4, 4), which is rigid and in the arm's base frame."""
        self._target = _Target(base_from_ee=base_from_ee, taken_ns=now_ns)

    def set_gripper_target(self, opening: float) -> None:
        """Set the gripper target, 0 closed to 1 open, which stays until the next one."""
        self._gripper = opening

    def set_other_publishers(self, detail: str) -> None:
        """Set the description of other publishers of this arm's targets; empty if there is one publisher only."""
        self._other_publishers = detail

    def tick(self, now_ns: int) -> JointCommand | Hold:
        """Return the command to send now, or the reason to hold."""
        before_ns, self._now_ns = self._now_ns, now_ns
        if now_ns < before_ns:
            self._restart()
            return Hold(reason=HoldReason.CLOCK_JUMP, detail=(
                f'{self._name}: the clock jumped back by {(before_ns - now_ns) / 1e9:.3f} s'))
        return self._decide(now_ns)

    def _decide(self, now_ns: int) -> JointCommand | Hold:
        reading = self._usable_joints(now_ns)
        if isinstance(reading, Hold):
            return reading
        if self._other_publishers:
            return Hold(reason=HoldReason.SECOND_PUBLISHER, detail=f'{self._name}: {self._other_publishers}')
        target = self._usable_target(now_ns)
        if isinstance(target, Hold):
            return target
        start = self._start(reading)
        if isinstance(start, Hold):
            return start
        return self._follow(target, start, reading, now_ns)

    def _usable_joints(self, now_ns: int) -> '_Reading | Hold':
        if self._joints_fault:
            return Hold(reason=HoldReason.BAD_INPUT, detail=f'{self._name}: {self._joints_fault}')
        if self._joints is None:
            return Hold(reason=HoldReason.MISSING_STREAM,
                        detail=f'{self._name}: no joint state on {self._arm.joint_states_topic} yet')
        age_s = (now_ns - self._joints.taken_ns) / 1e9
        if age_s > self._arm.max_age_s:
            return Hold(reason=HoldReason.STALE_STREAM, detail=(
                f'{self._name}: joint state is {age_s:.2f} s old; the limit is {self._arm.max_age_s:g} s'))
        return self._joints

    def _usable_target(self, now_ns: int) -> '_Target | Hold':
        if isinstance(self._target, Hold):
            return self._target
        age_s = (now_ns - self._target.taken_ns) / 1e9
        if age_s > self._config.target_timeout_s:
            return Hold(reason=HoldReason.STALE_STREAM, detail=(
                f'{self._name}: target is {age_s:.2f} s old; '
                f'the limit is {self._config.target_timeout_s:g} s'))
        return self._target

    def _start(self, reading: '_Reading') -> NDArray[np.float64] | Hold:
        """Return the joints (J,) that the next step starts from: the last command, which the driver still holds."""
        if self._command is None:
            return reading.positions
        error = np.abs(reading.positions - self._command.joints)
        if error.max() <= self._config.following_error_rad:
            return self._command.joints
        worst = int(error.argmax())
        self._reset_motion()
        return Hold(reason=HoldReason.FAR_FROM_CURRENT, detail=(
            f'{self._name}: {self._arm.joints[worst]} is {error[worst]:.2f} rad from its command; something '
            'stopped or moved the arm'))

    def _follow(self, target: '_Target', start: NDArray[np.float64], reading: '_Reading',
                now_ns: int) -> JointCommand | Hold:
        measured = ArmState(
            world_from_ee=self._world_from_base @ self._kinematics.base_from_ee(reading.positions),
            gripper=opening_from_reading(reading.gripper, self._arm.gripper_state))
        openings = (self._gripper, self._opening, measured.gripper)
        wanted = next(opening for opening in openings if opening is not None)
        safe = self._safety.check(self._name, self._world_from_base @ target.base_from_ee, wanted,
                                  measured=measured, now_ns=now_ns)
        if isinstance(safe, Hold):
            return safe
        solution = self._solver.step(start, self._base_from_world @ safe.world_from_ee)
        self._safety.executed(self._name, safe, now_ns)
        self._opening = safe.gripper
        config = self._config
        self._command = JointCommand(
            joints=solution.joints, gripper=reading_from_opening(safe.gripper, self._arm.gripper_command),
            position_error=solution.position_error, rotation_error=solution.rotation_error,
            reachable=(solution.position_error <= config.position_tolerance
                       and solution.rotation_error <= config.rotation_tolerance),
            clamps=safe.clamps)
        return self._command

    def _reset_motion(self) -> None:
        """Drop the last command, so that the next step starts from the measured joints."""
        self._command = None
        self._opening = None
        self._safety = SafetyFilter(self._contract)

    def _restart(self) -> None:
        """Drop everything that was received, because its times are of another clock."""
        self._reset_motion()
        self._joints = None
        self._gripper = None
        self._target = Hold(reason=HoldReason.MISSING_STREAM,
                            detail=f'{self._name}: no target since the clock jumped back')


@dataclass(frozen=True, kw_only=True, eq=False)
class _Reading:
    positions: NDArray[np.float64]
    gripper: float
    taken_ns: int


@dataclass(frozen=True, kw_only=True, eq=False)
class _Target:
    base_from_ee: NDArray[np.float64]
    taken_ns: int
