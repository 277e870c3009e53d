"""The arms as a chain of joints: forward kinematics, and the model that the solver differentiates.

Built from the robot's own geometry (:mod:`apt_control.vx300s`) and the contract's joint limits, so
hardware and simulation use the same numbers. Every arm stands at the origin: poses are in the arm's
own base frame. No masses, no contacts, no table.
"""

import mujoco
import numpy as np
from numpy.typing import NDArray

from apt_control import vx300s
from apt_policy.core.contract import Arm, RobotContract


class KinematicsError(ValueError):
    """A contract whose arms are not the ones that this model describes."""


class ArmKinematics:
    """One arm. Not for use from two threads at once."""

    def __init__(self, name: str, arm: Arm) -> None:
        """Compile the chain.

        Raises:
            KinematicsError: the joints are not those of a ViperX 300 S.
        """
        if arm.joints != vx300s.JOINTS:
            raise KinematicsError(f'arms.{name}.joints is {", ".join(arm.joints)}; '
                                  f'inverse kinematics knows a ViperX 300 S: {", ".join(vx300s.JOINTS)}')
        self.model = _compile(arm)
        self._data = mujoco.MjData(self.model)
        self._site = self.model.site(vx300s.EE_LINK).id

    @property
    def lower(self) -> NDArray[np.float64]:
        """(6,) [rad]."""
        return self.model.jnt_range[:, 0].copy()

    @property
    def upper(self) -> NDArray[np.float64]:
        """(6,) [rad]."""
        return self.model.jnt_range[:, 1].copy()

    def base_from_ee(self, joints: NDArray[np.float64]) -> NDArray[np.float64]:
        """(4, 4) pose of ``ee_gripper_link`` for joint positions (6,) [rad]."""
        self._data.qpos[:] = joints
        mujoco.mj_kinematics(self.model, self._data)
        pose = np.eye(4)
        pose[:3, :3] = self._data.site_xmat[self._site].reshape(3, 3)
        pose[:3, 3] = self._data.site_xpos[self._site]
        return pose


def arm_kinematics(contract: RobotContract) -> dict[str, ArmKinematics]:
    """The chain of every arm of the contract."""
    return {name: ArmKinematics(name, arm) for name, arm in contract.arms.items()}


def _compile(arm: Arm) -> mujoco.MjModel:
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    parent = spec.worldbody
    for link, lower, upper in zip(vx300s.LINKS, arm.joint_lower, arm.joint_upper, strict=True):
        # MuJoCo wants an inertia on every moving body; kinematics never looks at it.
        parent = parent.add_body(name=link.name, pos=link.offset, mass=1.0, inertia=[1.0, 1.0, 1.0],
                                 explicitinertial=True)
        parent.add_joint(name=link.joint, type=mujoco.mjtJoint.mjJNT_HINGE, axis=link.axis,
                         range=[lower, upper], limited=True)
    parent.add_site(name=vx300s.EE_LINK, pos=vx300s.HAND_FROM_EE)
    return spec.compile()
