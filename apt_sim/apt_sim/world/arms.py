"""Arms of the simulated scene: meshes, inertias and motors of gym-aloha on the kinematic chain of the contract.

The chain of gym-aloha's own description is not used. Forward and inverse kinematics follow the contract, so the
simulation does too: a recalibrated arm is simulated as calibrated, and its meshes move with its links.
"""

import mujoco
import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import Arm, RobotContract
from apt_policy.core.errors import UserError
from apt_policy.core.geometry import rotation_to_wxyz
from apt_policy.core.kinematics import KinematicsError, required_chain

ARMS = ('left', 'right')
SERVO_DAMPING_S = 0.03
"""Velocity feedback of the joint servos as a share of their stiffness [s]."""

# Interbotix' own value [N m]. With the asset's 30 to 60, wrist motors have a dead band of 0.3 rad. There, friction is
# the only damping; here it is velocity feedback: the error on a 10 cm circle is 0.5 mm instead of 3 mm.
_FRICTION_LOSS = 0.1


class SceneError(UserError, ValueError):
    """Contract or scene configuration that does not fit the simulated robot."""


def asset_name(arm: str) -> str:
    """Return the prefix of an arm's bodies, joints and actuators in the model."""
    return f'vx300s_{arm}'


def ee_site(arm: str) -> str:
    """Return the name of the site of an arm's end-effector."""
    return f'{asset_name(arm)}/ee'


def hand_body(spec: mujoco.MjSpec, contract: RobotContract, arm: str) -> mujoco.MjsBody:
    """Return the body that an arm's last joint carries."""
    return spec.joint(f'{asset_name(arm)}/{contract.arms[arm].joints[-1]}').parent


def link_names(model: mujoco.MjModel, arm: str, joints: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the links that an arm's joints carry, such as ``wrist_link``."""
    prefix = f'{asset_name(arm)}/'
    return tuple(model.body(model.joint(prefix + joint).bodyid[0]).name.removeprefix(prefix) for joint in joints)


def place_arms(spec: mujoco.MjSpec, contract: RobotContract) -> None:
    """Change gym-aloha's arms to match the contract.

    Raises:
        SceneError: the contract's arms or joints are not those of an ALOHA.
    """
    if sorted(contract.arms) != sorted(ARMS):
        raise SceneError(f'contract {contract.name!r} has the arms {", ".join(contract.arms)}; '
                         f'expected those of the simulated ALOHA: {", ".join(ARMS)}')
    for name, arm in contract.arms.items():
        prefix = asset_name(name)
        _check_joints(spec, name, arm)
        base = spec.body(prefix)
        _place(base, arm.world_from_base.translation, arm.world_from_base.matrix)
        for body in spec.bodies:
            if body.name.startswith(prefix):
                body.gravcomp = 1.0
        _chain_joints(spec, name, arm)
        _limit_motors(spec, name, arm)


def _check_joints(spec: mujoco.MjSpec, name: str, arm: Arm) -> None:
    prefix = f'{asset_name(name)}/'
    known = tuple(joint.name.removeprefix(prefix) for joint in spec.joints
                  if joint.name.startswith(prefix) and joint.type == mujoco.mjtJoint.mjJNT_HINGE)
    if arm.joints != known:
        raise SceneError(f'arms.{name}.joints is {", ".join(arm.joints)}; '
                         f'expected those of the simulated arm: {", ".join(known)}')


def _chain_joints(spec: mujoco.MjSpec, name: str, arm: Arm) -> None:
    try:
        chain = required_chain(name, arm, 'the simulator needs it to place the joints; add the chain '
                                          '(docs/convert.md)')
    except KinematicsError as error:
        raise SceneError(str(error)) from error
    link = spec.body(asset_name(name))
    for joint_name, place, axis in zip(arm.joints, (joint.place for joint in chain.links), chain.axes, strict=True):
        joint = spec.joint(f'{asset_name(name)}/{joint_name}')
        assert joint.parent.parent.name == link.name, 'each link of the asset is a child of the one before it'
        link = joint.parent
        _place(link, place.translation, place.matrix)
        joint.pos, joint.axis, joint.frictionloss = (0.0, 0.0, 0.0), axis, _FRICTION_LOSS
    link.add_site(name=ee_site(name), pos=chain.ee.translation, quat=rotation_to_wxyz(chain.ee.matrix[:3, :3]),
                  rgba=[0, 0, 0, 0])


def _limit_motors(spec: mujoco.MjSpec, name: str, arm: Arm) -> None:
    motors = {motor.target: motor for motor in spec.actuators}
    for joint, *limits in zip(arm.joints, arm.joint_lower, arm.joint_upper, strict=True):
        motor = motors[f'{asset_name(name)}/{joint}']
        spec.joint(motor.target).range = motor.ctrlrange = limits
        gains = motor.biasprm.copy()
        gains[2] = SERVO_DAMPING_S * gains[1]
        motor.biasprm = gains


def _place(body: mujoco.MjsBody, translation: tuple[float, float, float], pose: NDArray[np.float64]) -> None:
    body.pos = translation
    # Euler angles of the description would take precedence over a quaternion.
    body.alt.type = mujoco.mjtOrientation.mjORIENTATION_QUAT
    body.quat = rotation_to_wxyz(pose[:3, :3])
