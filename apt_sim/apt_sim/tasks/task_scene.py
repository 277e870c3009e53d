"""Simulated robot that executes targets through the real inverse-kinematics bridges, without ROS.

Deterministic, and as fast as the machine allows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apt_control.bridge import ArmBridge, JointCommand
from apt_policy.core.geometry import invert_pose
from apt_policy.core.gripper import opening_from_reading
from apt_policy.core.sample import ArmState, Hold, Target
from apt_sim.tasks.task import GroundTruth
from apt_sim.world.commands import CommandRejection, finger_command
from apt_sim.world.physics import Simulation

# Joint change below which a command counts as equal to the previous one [rad].
_STILL_RAD = 1e-5


class TaskScene:
    """Simulation with the IK bridges of its arms."""

    def __init__(self, simulation: Simulation) -> None:
        """Create the IK bridges for ``simulation``."""
        self.simulation = simulation
        self._contract = simulation.contract
        self._base_from_world = {name: invert_pose(arm.world_from_base.matrix)
                                 for name, arm in self._contract.arms.items()}
        self._bridges = self._fresh_bridges()
        self._last_targets: dict[str, _LastTarget] = {}
        self.holds: list[Hold] = []
        """Holds of the IK bridges in this episode."""

    def reset(self, seed: int) -> GroundTruth:
        """Start the episode of a seed and return its ground truth."""
        self.simulation.reset(seed)
        self._bridges = self._fresh_bridges()
        self._last_targets = {}
        self.holds = []
        return ground_truth(self.simulation)

    def step(self, target: Target) -> GroundTruth:
        """Execute a target for one control period and return the ground truth after it."""
        now_ns = self.simulation.time_ns
        for index in np.flatnonzero(target.valid_arms):
            self._command(tuple(self._contract.arms)[index], target.world_from_ee[index],
                          float(target.gripper[index]), now_ns)
        self.simulation.step(self.simulation.period_steps)
        return ground_truth(self.simulation)

    def hold(self) -> GroundTruth:
        """Advance one control period without a target; the arms keep their last commands."""
        self.simulation.step(self.simulation.period_steps)
        return ground_truth(self.simulation)

    def _command(self, name: str, world_from_ee: np.ndarray, gripper: float, now_ns: int) -> None:
        last = self._last_targets.get(name)
        again = last is not None and last.matches(world_from_ee, gripper)
        # Otherwise half of all inverse kinematics would be solved for the arm at rest.
        if last is not None and last.at_rest and again:
            return
        bridge, arm = self._bridges[name], self._contract.arms[name]
        readings = self.simulation.readings(name)
        bridge.update_joint_state(readings.position, readings.finger, now_ns)
        bridge.set_target_pose(self._base_from_world[name] @ world_from_ee, now_ns)
        bridge.set_gripper_target(gripper)
        outcome = bridge.tick(now_ns)
        if not isinstance(outcome, JointCommand):
            self.holds.append(outcome)
            self._last_targets.pop(name, None)
            return
        self._last_targets[name] = _LastTarget(
            world_from_ee=world_from_ee.copy(), gripper=gripper, outcome=outcome,
            at_rest=last is not None and again and last.outcome.gripper == outcome.gripper
            and bool(np.allclose(last.outcome.joints, outcome.joints, rtol=0.0, atol=_STILL_RAD)))
        self.simulation.command_joints(name, outcome.joints)
        finger = finger_command(arm, arm.gripper_command.joint, outcome.gripper)
        assert not isinstance(finger, CommandRejection), 'the bridge stays within the range of the gripper'
        self.simulation.command_finger(name, finger)

    def _fresh_bridges(self) -> dict[str, ArmBridge]:
        return {name: ArmBridge(self._contract, name) for name in self._contract.arms}


@dataclass(frozen=True, kw_only=True, eq=False)
class _LastTarget:
    """Last target of an arm, and the command that its bridge computed."""

    world_from_ee: NDArray[np.float64]
    gripper: float
    outcome: JointCommand
    at_rest: bool
    """True if the same target gave the same command twice in a row."""

    def matches(self, world_from_ee: NDArray[np.float64], gripper: float) -> bool:
        return gripper == self.gripper and np.array_equal(world_from_ee, self.world_from_ee)


def ground_truth(simulation: Simulation) -> GroundTruth:
    """Return the current ground truth of a simulation."""
    arms = {}
    for name, arm in simulation.contract.arms.items():
        opening = opening_from_reading(simulation.finger(name), arm.gripper_state)
        arms[name] = ArmState(world_from_ee=simulation.world_from_ee(name), gripper=opening)
    return GroundTruth(
        stamp_ns=simulation.time_ns, arms=arms,
        objects={name: simulation.world_from_object(name) for name in simulation.scene_objects.objects},
        trays={colour: simulation.world_from_tray(colour) for colour in simulation.scene_objects.trays})
