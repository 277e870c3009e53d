"""Safety filter: the last check of every target before it is sent to an arm.

The policy loop applies it, and the IK bridge applies it again. The checks in order: finite values; workspace
box and gripper range (clamped); distance of a first target from the measured pose (refused); linear,
angular and gripper speed from the last executed target (clamped).

Speeds are measured from the last *executed* target, not from the measured pose, because an arm
that is sent its own measured pose sags. After a gap of more than ``max_gap_s``, after
:meth:`SafetyFilter.recheck`, or after a clock that stepped back, the next target is a
first one again: it must lie near the measured pose. If the arm is still at its last executed target,
speeds are measured from that target, else from the measured pose. One step is limited to two control
periods of motion, whatever the gap.
"""

from dataclasses import dataclass
from enum import Flag, auto

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apt_policy.core.contract import RobotContract
from apt_policy.core.geometry import angle_between, interpolate_rotation, is_rigid, make_pose
from apt_policy.core.sample import ArmState, Hold, HoldReason

Array = NDArray[np.float64]

# Keeps a target exactly at its limit unchanged in spite of rounding.
_SLACK = 1.0 + 1e-9


class Clamp(Flag):
    """Bounds that limited a target."""

    NONE = 0
    WORKSPACE = auto()
    GRIPPER_RANGE = auto()
    LINEAR_SPEED = auto()
    ANGULAR_SPEED = auto()
    GRIPPER_SPEED = auto()


@dataclass(frozen=True, kw_only=True, eq=False)
class SafeTarget:
    """Target that may be sent to an arm."""

    world_from_ee: Array
    """(4, 4)."""
    gripper: float
    """0 closed .. 1 open."""
    clamps: Clamp = Clamp.NONE
    """Bounds that changed the target."""


class SafetyFilter:
    """Filter of targets, arm by arm, against the contract's limits.

    :meth:`check` has no side effect; :meth:`executed` records a target that was sent, so a
    target that is checked but not sent has no influence.
    """

    def __init__(self, contract: RobotContract, *, max_gap_s: float = 0.2) -> None:
        """Create the filter.

        Args:
            contract: robot contract with the limits.
            max_gap_s: time without an executed target after which the next one is a first target [s].
        """
        self._contract = contract
        self._max_gap_s = max_gap_s
        self._period_s = 1.0 / contract.control_rate_hz
        self._last: dict[str, tuple[SafeTarget, int]] = {}
        self._moving: set[str] = set()
        self.warnings = _unset_bounds(contract)
        """One sentence per bound that the contract leaves unset, for the log."""

    def check(self, arm: str, world_from_ee: ArrayLike, gripper: float, *, measured: ArmState | None,
              now_ns: int) -> SafeTarget | Hold:
        """Clamp the wanted target to the limits, or refuse it.

        Args:
            arm: arm name in the contract.
            world_from_ee: wanted pose (4, 4).
            gripper: wanted opening, 0 closed .. 1 open.
            measured: measured state of the arm; needed for a first target only.
            now_ns: instant of sending [ns].

        Returns:
            The target that may be sent, or a hold with the reason for the refusal.
        """
        pose, opening = np.asarray(world_from_ee, np.float64), float(gripper)
        if not (np.isfinite(pose).all() and np.isfinite(opening)):
            return Hold(reason=HoldReason.NON_FINITE, detail=f'{arm}: the target is not finite')
        if not is_rigid(pose):
            return Hold(reason=HoldReason.BAD_INPUT, detail=f'{arm}: the target is not a rigid transform')
        wanted = self._bounded(arm, pose, opening)
        elapsed_s = self._elapsed_s(arm, now_ns)
        if elapsed_s is not None:
            return self._slewed(self._last[arm][0], wanted, min(elapsed_s, 2 * self._period_s))
        origin = self._first_origin(arm, wanted, measured)
        return origin if isinstance(origin, Hold) else self._slewed(origin, wanted, self._period_s)

    def executed(self, arm: str, target: SafeTarget, now_ns: int) -> None:
        """Record that ``target`` was sent; the next speeds are measured from it."""
        self._last[arm] = (target, now_ns)
        self._moving.add(arm)

    def recheck(self) -> None:
        """Treat the next target of every arm as a first one, as after a reset or a re-enable."""
        self._moving.clear()

    def _elapsed_s(self, arm: str, now_ns: int) -> float | None:
        """Return the time since the last executed target [s]; None if the next one is a first target."""
        if arm not in self._moving:
            return None
        elapsed_s = (now_ns - self._last[arm][1]) / 1e9
        return elapsed_s if 0.0 <= elapsed_s <= self._max_gap_s else None

    def _bounded(self, arm: str, pose: Array, opening: float) -> SafeTarget:
        clamps = Clamp.NONE
        box = self._contract.arms[arm].workspace
        if box is not None:
            inside = np.clip(pose[:3, 3], box.lower, box.upper)
            if not np.array_equal(inside, pose[:3, 3]):
                pose, clamps = make_pose(pose[:3, :3], inside), Clamp.WORKSPACE
        if not 0.0 <= opening <= 1.0:
            opening, clamps = min(max(opening, 0.0), 1.0), clamps | Clamp.GRIPPER_RANGE
        return SafeTarget(world_from_ee=pose, gripper=opening, clamps=clamps)

    def _first_origin(self, arm: str, wanted: SafeTarget, measured: ArmState | None) -> SafeTarget | Hold:
        """Return the target that the speeds of a first target are measured from, or a hold."""
        if measured is None:
            return Hold(reason=HoldReason.MISSING_STREAM,
                        detail=f'{arm}: no measured pose to compare a first target with')
        if not (is_rigid(measured.world_from_ee) and np.isfinite(measured.gripper)):
            return Hold(reason=HoldReason.BAD_INPUT, detail=f'{arm}: the measured pose is not rigid')
        limits = self._contract.safety
        distance, angle = _separation(wanted.world_from_ee, measured.world_from_ee)
        if distance > limits.first_target_distance or angle > limits.first_target_angle:
            return Hold(reason=HoldReason.FAR_FROM_CURRENT, detail=(
                f'{arm}: first target is {distance:.3f} m and {angle:.2f} rad from the measured pose; '
                f'limits are {limits.first_target_distance:g} m and {limits.first_target_angle:g} rad'))
        if arm in self._last:
            last = self._last[arm][0]
            distance, angle = _separation(last.world_from_ee, measured.world_from_ee)
            if distance <= limits.first_target_distance and angle <= limits.first_target_angle:
                return last
        return SafeTarget(world_from_ee=measured.world_from_ee, gripper=measured.gripper)

    def _slewed(self, origin: SafeTarget, wanted: SafeTarget, step_s: float) -> SafeTarget:
        limits, clamps = self._contract.safety, wanted.clamps
        rotation, offset, opening = wanted.world_from_ee[:3, :3], wanted.world_from_ee[:3, 3], wanted.gripper
        distance, angle = _separation(origin.world_from_ee, wanted.world_from_ee)
        share = _share(limits.linear_speed, step_s, distance)
        if share < 1.0:
            start = origin.world_from_ee[:3, 3]
            offset = start + share * (offset - start)
            clamps |= Clamp.LINEAR_SPEED
        share = _share(limits.angular_speed, step_s, angle)
        if share < 1.0:
            rotation = interpolate_rotation(origin.world_from_ee[:3, :3], rotation, share)
            clamps |= Clamp.ANGULAR_SPEED
        share = _share(limits.gripper_speed, step_s, abs(opening - origin.gripper))
        if share < 1.0:
            opening = origin.gripper + share * (opening - origin.gripper)
            clamps |= Clamp.GRIPPER_SPEED
        return SafeTarget(world_from_ee=make_pose(rotation, offset), gripper=opening, clamps=clamps)


def _share(speed: float | None, step_s: float, wanted: float) -> float:
    """Return the share 0..1 of a wanted step that a speed limit allows."""
    if speed is None or wanted <= speed * step_s * _SLACK:
        return 1.0
    return speed * step_s / wanted


def _separation(a: Array, b: Array) -> tuple[float, float]:
    """Compute distance [m] and angle [rad] between two poses."""
    return float(np.linalg.norm(a[:3, 3] - b[:3, 3])), float(angle_between(a[:3, :3], b[:3, :3]))


def _unset_bounds(contract: RobotContract) -> tuple[str, ...]:
    missing = [f'safety.{name} is unset: the {what} speed of targets is not limited'
               for name, what in (('linear_speed', 'linear'), ('angular_speed', 'angular'),
                                  ('gripper_speed', 'gripper'))
               if getattr(contract.safety, name) is None]
    return (*missing, *(f'arms.{name}.workspace is unset: {name} may be sent anywhere'
                        for name, arm in contract.arms.items() if arm.workspace is None))
