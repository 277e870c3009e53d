"""Arms as chains of joints: forward kinematics, and the model that the solver differentiates.

The model is built from the contract's chain and joint limits alone. Every arm stands at the origin: poses are in the
arm's own base frame. There are no masses, contacts or table.
"""

import mujoco
import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import Arm, RobotContract
from apt_policy.core.geometry import make_pose, rotation_to_wxyz
from apt_policy.core.kinematics import required_chain
from apt_policy.core.placement import Chain

EE_SITE = 'ee'
"""Name of the end-effector's site in :attr:`ArmKinematics.model`."""


class ArmKinematics:
    """Kinematics of one arm with any number of revolute joints; not thread-safe."""

    def __init__(self, name: str, arm: Arm) -> None:
        """Compile the chain.

        Raises:
            KinematicsError: the contract has no chain for this arm.
        """
        chain = required_chain(name, arm, 'inverse kinematics does not know the arm; add the chain (docs/convert.md)')
        self.model = _compile(arm, chain)
        self._data = mujoco.MjData(self.model)
        self._site = self.model.site(EE_SITE).id

    @property
    def lower(self) -> NDArray[np.float64]:
        """Lower joint limits (J,) [rad]."""
        return self.model.jnt_range[:, 0].copy()

    @property
    def upper(self) -> NDArray[np.float64]:
        """Upper joint limits (J,) [rad]."""
        return self.model.jnt_range[:, 1].copy()

    def base_from_ee(self, joints: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the pose (4, 4) of the end-effector for joint positions (J,) [rad]."""
        self._data.qpos[:] = joints
        mujoco.mj_kinematics(self.model, self._data)
        return make_pose(self._data.site_xmat[self._site].reshape(3, 3), self._data.site_xpos[self._site])


def arm_kinematics(contract: RobotContract) -> dict[str, ArmKinematics]:
    """Return the kinematics of every arm of the contract."""
    return {name: ArmKinematics(name, arm) for name, arm in contract.arms.items()}


def _compile(arm: Arm, chain: Chain) -> mujoco.MjModel:
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    parent = spec.worldbody
    for name, link, axis, lower, upper in zip(arm.joints, chain.links, chain.axes, arm.joint_lower, arm.joint_upper,
                                              strict=True):
        # MuJoCo requires an inertia on every moving body; kinematics does not use it.
        parent = parent.add_body(pos=link.place.translation, quat=rotation_to_wxyz(link.place.matrix[:3, :3]),
                                 mass=1.0, inertia=[1.0, 1.0, 1.0], explicitinertial=True)
        parent.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_HINGE, axis=axis, range=[lower, upper], limited=True)
    parent.add_site(name=EE_SITE, pos=chain.ee.translation, quat=rotation_to_wxyz(chain.ee.matrix[:3, :3]))
    return spec.compile()
