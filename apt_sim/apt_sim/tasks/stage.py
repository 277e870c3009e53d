"""A simulated robot that follows targets through the real inverse-kinematics bridge, without ROS.

As fast as the machine allows, and deterministic. What the targets are for is not known here.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apt_control.bridge import ArmBridge, JointCommand
from apt_policy.core.geometry import invert_pose
from apt_policy.core.gripper import opening_from_reading
from apt_policy.core.sample import ArmState, Hold, Target
from apt_sim.tasks.task import Situation
from apt_sim.world.commands import Refusal, finger_command
from apt_sim.world.physics import Simulation

# A command that changes by less does not move a motor.
_STILL_RAD = 1e-5


class Stage:
    """One simulation and the bridges of its arms."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self._contract = simulation.contract
        self._base_from_world = {name: invert_pose(arm.world_from_base.matrix)
                                 for name, arm in self._contract.arms.items()}
        self._bridges = self._fresh_bridges()
        self._told: dict[str, _Told] = {}
        self.holds: list[Hold] = []
        """Why bridges did not follow, in this episode."""

    def reset(self, seed: int) -> Situation:
        """Begin an episode."""
        self.simulation.reset(seed)
        self._bridges = self._fresh_bridges()
        self._told = {}
        self.holds = []
        return situation(self.simulation)

    def follow(self, target: Target) -> Situation:
        """One control period."""
        now_ns = self.simulation.time_ns
        for index in np.flatnonzero(target.valid_arms):
            self._command(tuple(self._contract.arms)[index], target.world_from_ee[index],
                          float(target.gripper[index]), now_ns)
        self.simulation.step(self.simulation.period_steps)
        return situation(self.simulation)

    def wait(self) -> Situation:
        """One control period without a target: the arms keep their last commands."""
        self.simulation.step(self.simulation.period_steps)
        return situation(self.simulation)

    def _command(self, name: str, world_from_ee: np.ndarray, gripper: float, now_ns: int) -> None:
        told = self._told.get(name)
        again = told is not None and told.is_told_again(world_from_ee, gripper)
        # Else half of all inverse kinematics were for the arm that waits.
        if told is not None and told.at_rest and again:
            return
        bridge, arm = self._bridges[name], self._contract.arms[name]
        readings = self.simulation.readings(name)
        bridge.update_joint_state(readings.position, readings.finger, now_ns)
        bridge.set_target_pose(self._base_from_world[name] @ world_from_ee, now_ns)
        bridge.set_gripper_target(gripper)
        outcome = bridge.tick(now_ns)
        if not isinstance(outcome, JointCommand):
            self.holds.append(outcome)
            self._told.pop(name, None)
            return
        self._told[name] = _Told(
            world_from_ee=world_from_ee.copy(), gripper=gripper, outcome=outcome,
            at_rest=told is not None and again and told.outcome.gripper == outcome.gripper
            and bool(np.allclose(told.outcome.joints, outcome.joints, rtol=0.0, atol=_STILL_RAD)))
        self.simulation.command_joints(name, outcome.joints)
        finger = finger_command(arm, arm.gripper_command.joint, outcome.gripper)
        assert not isinstance(finger, Refusal), 'the bridge keeps to the range of the gripper'
        self.simulation.command_finger(name, finger)

    def _fresh_bridges(self) -> dict[str, ArmBridge]:
        return {name: ArmBridge(self._contract, name) for name in self._contract.arms}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Told:
    """What an arm was told last, and what its bridge made of it."""

    world_from_ee: NDArray[np.float64]
    gripper: float
    outcome: JointCommand
    at_rest: bool
    """Whether the bridge had made the same of it before."""

    def is_told_again(self, world_from_ee: NDArray[np.float64], gripper: float) -> bool:
        return gripper == self.gripper and np.array_equal(world_from_ee, self.world_from_ee)


def situation(simulation: Simulation) -> Situation:
    """Where everything is in a simulation."""
    arms = {}
    for name, arm in simulation.contract.arms.items():
        opening = opening_from_reading(simulation.finger(name), arm.gripper_state)
        arms[name] = ArmState(world_from_ee=simulation.world_from_ee(name), gripper=opening)
    return Situation(
        stamp_ns=simulation.time_ns, arms=arms,
        objects={name: simulation.world_from_object(name) for name in simulation.cast.objects},
        trays={colour: simulation.world_from_tray(colour) for colour in simulation.cast.trays})
