"""From targets of one end-effector to commands of its joints, or to a reason to hold.

Whatever is wrong, the outcome of a tick is a :class:`Hold` and nothing is sent: the driver then keeps
its last command, which is what "hold" means on a ViperX (one that is sent its own measured pose sags).
Given the time, it needs no clock; messages and topics stay outside.
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

# Joints cannot outrun their limit; a reading that did is another episode or a broken encoder.
_JUMP_FACTOR = 2.0
_JUMP_SLACK_RAD = 0.1


@dataclass(frozen=True, kw_only=True)
class BridgeSettings:
    """What the contract leaves open."""

    target_timeout_s: float = 0.2
    """A target that is not renewed for this long is not followed any more."""
    following_error_rad: float = 0.5
    """A joint farther from its command than this has been stopped or moved by something."""
    position_tolerance: float = 0.005
    """[m] within which a pose counts as reachable."""
    rotation_tolerance: float = 0.1
    """[rad], likewise."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Command:
    """What the driver of one arm is sent."""

    joints: NDArray[np.float64]
    """(J,) in the contract's order [rad]."""
    gripper: float
    """In the unit of the contract's ``gripper_command``."""
    position_error: float
    """Between the target and the pose that the joints reach [m]."""
    rotation_error: float
    """Likewise [rad]."""
    reachable: bool
    clamps: Clamp
    """What the safety filter changed about the target."""


class ArmBridge:
    """The bridge of one arm."""

    def __init__(self, contract: RobotContract, name: str, settings: BridgeSettings | None = None) -> None:
        """
        Raises:
            KinematicsError: the contract has no chain for the arm.
        """
        self._contract, self._name = contract, name
        self._arm: Arm = contract.arms[name]
        self._settings = settings or BridgeSettings()
        self._world_from_base = self._arm.world_from_base.matrix
        self._base_from_world = invert_pose(self._world_from_base)
        self._kinematics = ArmKinematics(name, self._arm)
        self._solver = ArmSolver(self._kinematics, self._arm, contract.safety,
                                 period_s=1.0 / contract.control_rate_hz)
        self._safety = SafetyFilter(contract)
        self.warnings = self._safety.warnings
        """Bounds that the contract leaves unset, one sentence each."""
        self._joints: _Reading | None = None
        self._joints_fault = ''
        self._target: _Target | Hold = Hold(reason=HoldReason.MISSING_STREAM, detail=f'{name}: no target yet')
        self._gripper: float | None = None
        self._opening: float | None = None
        self._rivals = ''
        self._command: Command | None = None
        self._now_ns = 0

    def take_joints(self, positions: NDArray[np.float64], gripper: float, now_ns: int) -> None:
        """Measured joints (J,) [rad] and the reading of the gripper's joint, all finite."""
        before = self._joints
        self._joints = _Reading(positions=positions, gripper=gripper, taken_ns=now_ns)
        self._joints_fault = ''
        if before is not None:
            elapsed_s = max(now_ns - before.taken_ns, 0) / 1e9
            possible = _JUMP_FACTOR * self._arm.joint_velocity * elapsed_s + _JUMP_SLACK_RAD
            if np.abs(positions - before.positions).max() > possible:
                self._forget_motion()

    def take_joints_fault(self, detail: str) -> None:
        """The newest joint state cannot be used; hold until a good one comes."""
        self._joints_fault = detail

    def take_target(self, frame: str, position: NDArray[np.float64], quaternion_xyzw: NDArray[np.float64],
                    now_ns: int) -> None:
        """A target pose: (3,) [m] and (4,) in ``frame``, which must be the arm's base frame."""
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
            self.take_pose(pose_from_quaternion(position, quaternion_xyzw), now_ns)

    def take_pose(self, base_from_ee: NDArray[np.float64], now_ns: int) -> None:
        """A target pose (4, 4) that is rigid and in the arm's base frame."""
        self._target = _Target(base_from_ee=base_from_ee, taken_ns=now_ns)

    def take_gripper(self, opening: float) -> None:
        """A gripper target, 0 closed .. 1 open; kept until the next one."""
        self._gripper = opening

    def take_rivals(self, detail: str) -> None:
        """Who competes for this arm, in words; empty while one publisher has it alone."""
        self._rivals = detail

    def tick(self, now_ns: int) -> Command | Hold:
        """What to send now, or why nothing."""
        before_ns, self._now_ns = self._now_ns, now_ns
        if now_ns < before_ns:
            self._restart()
            return Hold(reason=HoldReason.CLOCK_JUMP, detail=(
                f'{self._name}: time went back by {(before_ns - now_ns) / 1e9:.3f} s'))
        return self._decide(now_ns)

    def _decide(self, now_ns: int) -> Command | Hold:
        reading = self._usable_joints(now_ns)
        if isinstance(reading, Hold):
            return reading
        if self._rivals:
            return Hold(reason=HoldReason.SECOND_PUBLISHER, detail=f'{self._name}: {self._rivals}')
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
        if age_s > self._settings.target_timeout_s:
            return Hold(reason=HoldReason.STALE_STREAM, detail=(
                f'{self._name}: target is {age_s:.2f} s old; '
                f'the limit is {self._settings.target_timeout_s:g} s'))
        return self._target

    def _start(self, reading: '_Reading') -> NDArray[np.float64] | Hold:
        """Joints (J,) that the next step starts from: the last command, which the driver still keeps."""
        if self._command is None:
            return reading.positions
        error = np.abs(reading.positions - self._command.joints)
        if error.max() <= self._settings.following_error_rad:
            return self._command.joints
        worst = int(error.argmax())
        self._forget_motion()
        return Hold(reason=HoldReason.FAR_FROM_CURRENT, detail=(
            f'{self._name}: {self._arm.joints[worst]} is {error[worst]:.2f} rad from its command; something '
            'stopped or moved the arm'))

    def _follow(self, target: '_Target', start: NDArray[np.float64], reading: '_Reading',
                now_ns: int) -> Command | Hold:
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
        settings = self._settings
        self._command = Command(
            joints=solution.joints, gripper=reading_from_opening(safe.gripper, self._arm.gripper_command),
            position_error=solution.position_error, rotation_error=solution.rotation_error,
            reachable=(solution.position_error <= settings.position_tolerance
                       and solution.rotation_error <= settings.rotation_tolerance),
            clamps=safe.clamps)
        return self._command

    def _forget_motion(self) -> None:
        """Begin again from where the arm is."""
        self._command = None
        self._opening = None
        self._safety = SafetyFilter(self._contract)

    def _restart(self) -> None:
        """Forget everything that was received: its times mean nothing any more."""
        self._forget_motion()
        self._joints = None
        self._gripper = None
        self._target = Hold(reason=HoldReason.MISSING_STREAM,
                            detail=f'{self._name}: no target since time went back')


@dataclass(frozen=True, kw_only=True, eq=False)
class _Reading:
    positions: NDArray[np.float64]
    gripper: float
    taken_ns: int


@dataclass(frozen=True, kw_only=True, eq=False)
class _Target:
    base_from_ee: NDArray[np.float64]
    taken_ns: int
