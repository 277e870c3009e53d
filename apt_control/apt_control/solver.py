"""Inverse kinematics of one arm, one control period at a time.

Each step moves the joints towards the target pose within joint and velocity limits (mink). A target
out of reach leads to the nearest pose that is in reach, and the rest is reported. Nothing here knows
where a target comes from, or what stands in the way of the arm.
"""

from dataclasses import dataclass

import mink
import numpy as np
from numpy.typing import NDArray

from apt_control.kinematics import EE_SITE, ArmKinematics
from apt_policy.core.contract import Arm, SafetyLimits
from apt_policy.core.geometry import angle_between

_SOLVER = 'daqp'
# Damping tried in turn until a step brings the arm nearer. Without this, targets out of reach made
# the solution jump to and fro at the velocity limit; with it all of 40 random ones came to rest.
_DAMPING = (1e-12, 1e-3, 1e-2, 1e-1, 1.0)
# The hand may be this much faster than any target may be: it has a servo's lag to make up for.
_CATCH_UP = 1.5


@dataclass(frozen=True, kw_only=True)
class SolverSettings:
    """Weights of the least-squares problem."""

    position_cost: float = 1.0
    """[1/m]."""
    orientation_cost: float = 0.02
    """[1/rad]. Low, so that a pose out of reach costs orientation rather than position."""
    posture_cost: float = 1e-4
    """[1/rad] towards the start pose, where the target leaves freedom."""
    lm_damping: float = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """Joint positions for the next control period."""

    joints: NDArray[np.float64]
    """(J,) [rad], within limits."""
    base_from_ee: NDArray[np.float64]
    """(4, 4) pose that they reach."""
    position_error: float
    """From there to the target [m]."""
    rotation_error: float
    """Likewise [rad]."""


class ArmSolver:
    """The solver of one arm.

    Arms are solved apart: in one problem the damping that one arm's far target brings would slow
    the other arm down.
    """

    def __init__(self, kinematics: ArmKinematics, arm: Arm, limits: SafetyLimits, *, period_s: float,
                 settings: SolverSettings | None = None) -> None:
        settings = settings or SolverSettings()
        self._kinematics = kinematics
        self._limits = limits
        self._period_s = period_s
        self._configuration = mink.Configuration(kinematics.model)
        self._reach = mink.FrameTask(
            EE_SITE, 'site', position_cost=settings.position_cost,
            orientation_cost=settings.orientation_cost, lm_damping=settings.lm_damping)
        self._posture = mink.PostureTask(kinematics.model, cost=settings.posture_cost)
        self._posture.set_target(np.array(arm.start))
        self._bounds = [_StepLimit(kinematics, arm.joint_velocity)]
        self._level = 0

    def step(self, joints: NDArray[np.float64], base_from_target: NDArray[np.float64]) -> Solution:
        """One control period from ``joints`` (J,) [rad] towards a pose (4, 4).

        Joints that start outside their limits may stay there or come back, never go farther.
        """
        self._reach.set_target(mink.SE3.from_matrix(base_from_target))
        self._configuration.update(joints)
        reached, pose = self._slow_enough(joints, self._nearer(joints))
        return Solution(
            joints=reached, base_from_ee=pose,
            position_error=float(np.linalg.norm(pose[:3, 3] - base_from_target[:3, 3])),
            rotation_error=float(angle_between(pose[:3, :3], base_from_target[:3, :3])))

    def _nearer(self, joints: NDArray[np.float64]) -> NDArray[np.float64]:
        """Joints (J,) that are nearer to the target than ``joints``, or the same."""
        before = self._distance()
        # Begun a little below what was needed last: at rest out of reach, only much damping helps.
        for level in range(max(self._level - 1, 0), len(_DAMPING)):
            self._level = level
            try:
                velocity = mink.solve_ik(self._configuration, (self._reach, self._posture), self._period_s,
                                         _SOLVER, damping=_DAMPING[level], limits=self._bounds)
            except mink.NoSolutionFound:
                continue
            candidate = joints + velocity * self._period_s
            self._configuration.update(candidate)
            if self._distance() <= before:
                return candidate
            self._configuration.update(joints)
        return joints

    def _distance(self) -> float:
        """The cost that each step must not increase."""
        weighted = np.concatenate([task.cost * task.compute_error(self._configuration)
                                   for task in (self._reach, self._posture)])
        return float(weighted @ weighted)

    def _slow_enough(self, joints: NDArray[np.float64],
                     goal: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The part of the step that keeps the hand within the speeds that targets are held to, and where it is then."""
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
