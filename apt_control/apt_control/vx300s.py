"""The ViperX 300 S as facts: its joints, links and tool frame.

Source: Interbotix' ``aloha_vx300s.urdf.xacro`` (interbotix_ros_manipulators). All joints are
revolute, all offsets pure translations in the parent's frame at the joint's zero. Nothing here
knows where an arm stands, how far a joint may turn (the contract says so) or how it is driven.
"""

from dataclasses import dataclass

Vector3 = tuple[float, float, float]

_X: Vector3 = (1.0, 0.0, 0.0)
_Y: Vector3 = (0.0, 1.0, 0.0)
_Z: Vector3 = (0.0, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Link:
    """A link and the revolute joint that carries it."""

    name: str
    joint: str
    offset: Vector3
    """Of the joint in the parent link's frame [m]."""
    axis: Vector3
    """In the link's frame."""


BASE_LINK = 'base_link'
LINKS: tuple[Link, ...] = (
    Link(name='shoulder_link', joint='waist', offset=(0.0, 0.0, 0.079), axis=_Z),
    Link(name='upper_arm_link', joint='shoulder', offset=(0.0, 0.0, 0.04805), axis=_Y),
    Link(name='upper_forearm_link', joint='elbow', offset=(0.05955, 0.0, 0.3), axis=_Y),
    Link(name='lower_forearm_link', joint='forearm_roll', offset=(0.2, 0.0, 0.0), axis=_X),
    Link(name='wrist_link', joint='wrist_angle', offset=(0.1, 0.0, 0.0), axis=_Y),
    Link(name='gripper_link', joint='wrist_rotate', offset=(0.069744, 0.0, 0.0), axis=_X),
)
JOINTS: tuple[str, ...] = tuple(link.joint for link in LINKS)
HAND_LINK = LINKS[-1].name
EE_LINK = 'ee_gripper_link'
# ee_arm 0.042825, ee_bar 0.025875, ee_gripper 0.0385 along x; fixed, so one transform here.
HAND_FROM_EE: Vector3 = (0.1072, 0.0, 0.0)
# Between the pads of ALOHA's long fingers, which reach 46 mm beyond ee_gripper_link.
EE_FROM_TOOL_CENTRE: Vector3 = (0.0278, 0.0, 0.0)
