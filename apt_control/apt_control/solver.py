"""Differential inverse kinematics of one arm with mink.

Each step moves the joints towards the target pose within joint and velocity limits. A target
out of reach leads to the nearest reachable pose, and the remaining error is reported. There is no collision avoidance.
"""

from dataclasses import dataclass

import mink
import numpy as np
from numpy.typing import NDArray

from apt_control.kinematics import EE_SITE, ArmKinematics
from apt_policy.core.contract import Arm, SafetyLimits
from apt_policy.core.geometry import angle_between

_SOLVER = 'daqp'
# Damping values that are tried in turn until a step decreases the cost. Without them, targets out of reach made
# the solution oscillate at the velocity limit; with them all of 40 random ones came to rest.
_DAMPING = (1e-12, 1e-3, 1e-2, 1e-1, 1.0)
# The hand may be this much faster than a target may be, to catch up with the lag of the servos.
_CATCH_UP = 1.5


@dataclass(frozen=True, kw_only=True)
class SolverConfig:
    """Weights of the least-squares problem."""

    position_cost: float = 1.0
    """Cost of the position error [1/m]."""
    orientation_cost: float = 0.02
    """Cost of the rotation error [1/rad]; low, so that out of reach the orientation gives way before the position."""
    posture_cost: float = 1e-4
    """Cost of the distance from the start pose [1/rad], where the target leaves freedom."""
    lm_damping: float = 0.1
    """Levenberg-Marquardt damping of the frame task."""


@dataclass(frozen=True, kw_only=True, eq=False)
class IkSolution:
    """Joint positions for the next control period."""

    joints: NDArray[np.float64]
    """Joint positions (J,) within limits [rad]."""
    base_from_ee: NDArray[np.float64]
    """Pose (4, 4) of the end-effector at these joints."""
    position_error: float
    """Distance from that pose to the target [m]."""
    rotation_error: float
    """Angle from that pose to the target [rad]."""


class ArmSolver:
    """Solver of one arm.

    Each arm is a problem of its own: in a common one, the damping for one arm's far target would slow
    the other arm down.
    """

    def __init__(self, kinematics: ArmKinematics, arm: Arm, limits: SafetyLimits, *, period_s: float,
                 config: SolverConfig | None = None) -> None:
        """Set up the tasks and limits.

        Args:
            kinematics: model of the arm.
            arm: arm of the contract.
            limits: speeds that targets are held to.
            period_s: control period [s].
            config: weights; the defaults if None.
        """
        config = config or SolverConfig()
        self._kinematics = kinematics
        self._limits = limits
        self._period_s = period_s
        self._configuration = mink.Configuration(kinematics.model)
        self._reach = mink.FrameTask(
            EE_SITE, 'site', position_cost=config.position_cost,
            orientation_cost=config.orientation_cost, lm_damping=config.lm_damping)
        self._posture = mink.PostureTask(kinematics.model, cost=config.posture_cost)
        self._posture.set_target(np.array(arm.start))
        self._bounds = [_StepLimit(kinematics, arm.joint_velocity)]
        self._level = 0

    def step(self, joints: NDArray[np.float64], base_from_target: NDArray[np.float64]) -> IkSolution:
        """Move the joints for one control period towards a pose.

        Joints that start outside their limits may stay there or come back, but do not go farther.

        Args:
            joints: (J,) present joint positions [rad].
            base_from_target: (4, 4) target pose.
        """
        self._reach.set_target(mink.SE3.from_matrix(base_from_target))
        self._configuration.update(joints)
        reached, pose = self._limit_speed(joints, self._decrease_cost(joints))
        return IkSolution(
            joints=reached, base_from_ee=pose,
            position_error=float(np.linalg.norm(pose[:3, 3] - base_from_target[:3, 3])),
            rotation_error=float(angle_between(pose[:3, :3], base_from_target[:3, :3])))

    def _decrease_cost(self, joints: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return joints (J,) with a lower cost than ``joints``, or the same."""
        before = self._cost()
        # Starts one level below the last one: at rest out of reach, only high damping decreases the cost.
        for level in range(max(self._level - 1, 0), len(_DAMPING)):
            self._level = level
            try:
                velocity = mink.solve_ik(self._configuration, (self._reach, self._posture), self._period_s,
                                         _SOLVER, damping=_DAMPING[level], limits=self._bounds)
            except mink.NoSolutionFound:
                continue
            candidate = joints + velocity * self._period_s
            self._configuration.update(candidate)
            if self._cost() <= before:
                return candidate
            self._configuration.update(joints)
        return joints

    def _cost(self) -> float:
        """Return the cost that no step may increase."""
        weighted = np.concatenate([task.cost * task.compute_error(self._configuration)
                                   for task in (self._reach, self._posture)])
        return float(weighted @ weighted)

    def _limit_speed(self, joints: NDArray[np.float64],
                     goal: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the part of the step that keeps the hand within the speeds of targets, and the pose there."""
        start, end = self._kinematics.base_from_ee(joints), self._kinematics.base_from_ee(goal)
        speeds = (np.linalg.norm(end[:3, 3] - start[:3, 3]) / self._period_s,
                  angle_between(start[:3, :3], end[:3, :3]) / self._period_s)
        allowed = (self._limits.linear_speed, self._limits.angular_speed)
        share = min((_CATCH_UP * most / speed for speed, most in zip(speeds, allowed, strict=True)
                     if most is not None and speed > _CATCH_UP * most), default=1.0)
        if share == 1.0:
            return goal, end
        reached = joints + share * (goal - joints)
        return reached, self._kinematics.base_from_ee(reached)


class _StepLimit(mink.Limit):
    """Joint and velocity limits as one box around the present joints."""

    def __init__(self, kinematics: ArmKinematics, velocity: float) -> None:
        self._lower, self._upper, self._velocity = kinematics.lower, kinematics.upper, velocity
        self._matrix = np.vstack([np.eye(kinematics.model.nv), -np.eye(kinematics.model.nv)])

    def compute_qp_inequalities(self, configuration: mink.Configuration, dt: float) -> mink.Constraint:
        room = np.concatenate([self._upper - configuration.q, configuration.q - self._lower])
        return mink.Constraint(G=self._matrix, h=np.clip(room, 0.0, self._velocity * dt))
