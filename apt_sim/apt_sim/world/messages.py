"""Conversion of the simulation's state to ROS messages.

Frames and joint names come from the contract; topics and rates are the node's.
"""

from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import ColorRGBA
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker, MarkerArray

from apt_policy.core.contract import Arm, RobotContract
from apt_policy.core.frame_history import multiply, normalised
from apt_policy.core.kinematics import required_chain
from apt_policy.core.placement import Chain
from apt_policy.ros import encode
from apt_policy.ros.stamps import to_time
from apt_sim.world.cameras import CameraImage, intrinsics, parent_from_camera
from apt_sim.world.commands import motor_from_finger
from apt_sim.world.motors import JointReadings
from apt_sim.world.objects import OBJECT_COLOURS, OBJECT_SIDE, TRAY_COLOURS, TRAY_SIZE, Colour, Shape, object_spec
from apt_sim.world.physics import Simulation

GRIPPER_JOINTS = ('gripper', 'left_finger', 'right_finger')
OBJECTS, TRAYS = 'object', 'tray'
"""Marker namespaces of :func:`objects`."""


def clock(stamp_ns: int) -> Clock:
    """Return the clock message of a simulated time."""
    return Clock(clock=to_time(stamp_ns))


def joint_states(stamp_ns: int, arm: Arm, readings: JointReadings) -> JointState:
    """Return all joints of one arm in the order of the Interbotix driver."""
    gripper = arm.gripper_command
    motor = motor_from_finger(readings.finger, gripper)
    motor_velocity = motor_from_finger(readings.finger + readings.finger_velocity, gripper) - motor
    message = encode.joint_state(
        stamp_ns, (*arm.joints, *GRIPPER_JOINTS),
        (*readings.position.tolist(), motor, readings.finger, -readings.finger),
        (*readings.velocity.tolist(), motor_velocity, readings.finger_velocity, -readings.finger_velocity))
    message.effort = [*readings.effort.tolist(), 0.0, 0.0, 0.0]
    return message


def image(contract: RobotContract, camera: str, camera_image: CameraImage) -> Image:
    """Return the image message of a rendered image."""
    return encode.image(camera_image.stamp_ns, contract.cameras[camera].frame, camera_image.rgb)


def camera_info(simulation: Simulation, camera: str, stamp_ns: int) -> CameraInfo:
    """Return the calibration of a camera."""
    settings, frame = simulation.settings, simulation.contract.cameras[camera].frame
    return encode.camera_info(stamp_ns, frame, intrinsics(simulation, camera),
                              settings.image_width, settings.image_height)


def static_frames(stamp_ns: int, simulation: Simulation) -> TFMessage:
    """Return the transforms that are constant in an episode.

    These are arm bases and fixed cameras in the world, and tool frames and wrist cameras on the hands.
    """
    contract, edges = simulation.contract, []
    hands = {name: link_frame(arm, simulation.links[name][-1]) for name, arm in contract.arms.items()}
    for name, arm in contract.arms.items():
        edges.append((contract.world_frame, arm.base_frame, arm.world_from_base.matrix))
        edges.append((hands[name], arm.ee_frame, _chain(name, arm).ee.matrix))
    for name, camera in contract.cameras.items():
        fixed = camera.world_from_camera is not None
        parent = contract.world_frame if fixed else hands[str(camera.tf_anchor)]
        edges.append((parent, camera.frame, parent_from_camera(simulation, name)))
    return TFMessage(transforms=[encode.transform(stamp_ns, *edge) for edge in edges])


def objects(simulation: Simulation) -> MarkerArray:
    """Return the true poses of objects and trays, one marker each with the name as its text.

    The scripted expert and RViz use them.
    """
    scene = simulation.scene_objects
    return MarkerArray(markers=[*(_object(simulation, slot) for slot in range(len(scene.objects))),
                                *(_tray(simulation, slot) for slot in range(len(scene.trays)))])


def _object(simulation: Simulation, slot: int) -> Marker:
    name = simulation.scene_objects.objects[slot]
    shape = object_spec(name).shape
    marker = _marker(simulation, OBJECTS, slot, name, simulation.world_from_object(name))
    marker.type = Marker.CYLINDER if shape is Shape.CUP else Marker.CUBE
    marker.scale.x, marker.scale.y, marker.scale.z = shape.length, OBJECT_SIDE, OBJECT_SIDE
    marker.color = _colour(OBJECT_COLOURS[object_spec(name).colour])
    return marker


def _tray(simulation: Simulation, slot: int) -> Marker:
    colour = simulation.scene_objects.trays[slot]
    marker = _marker(simulation, TRAYS, slot, colour, simulation.world_from_tray(colour))
    marker.scale.x, marker.scale.y, marker.scale.z = TRAY_SIZE
    marker.color = _colour(TRAY_COLOURS[colour])
    return marker


def _marker(simulation: Simulation, namespace: str, slot: int, name: str, pose: NDArray[np.float64]) -> Marker:
    marker = Marker(header=encode.header(simulation.time_ns, simulation.contract.world_frame), ns=namespace,
                    id=slot, type=Marker.CUBE, text=name)
    marker.pose = encode.pose(pose)
    return marker


def _colour(rgb: Colour) -> ColorRGBA:
    red, green, blue = rgb
    return ColorRGBA(r=red, g=green, b=blue, a=1.0)


def link_frame(arm: Arm, link: str) -> str:
    """Return the frame of a link, with the prefix of the arm's base frame."""
    folder, slash, _ = arm.base_frame.rpartition('/')
    return f'{folder}{slash}{link}'


class LinkTransforms:
    """Link transforms of every arm, from joint positions.

    The messages are created once and updated at every tick, because TF is the largest share of the node's messages.
    """

    def __init__(self, simulation: Simulation) -> None:
        """Create the messages for the links of ``simulation``."""
        self._chains = {name: _ChainTransforms(name, arm, simulation.links[name])
                        for name, arm in simulation.contract.arms.items()}

    def to_message(self, stamp_ns: int, joints: dict[str, NDArray[np.float64]]) -> TFMessage:
        """Return the transforms of all links.

        Args:
            stamp_ns: time of the joint positions [ns].
            joints: joint positions (J,) by arm [rad].
        """
        stamp = to_time(stamp_ns)
        return TFMessage(transforms=[edge for name, chain in self._chains.items()
                                     for edge in chain.transforms(stamp, joints[name])])


class _ChainTransforms:
    """Transforms of one arm, each from a link to the next."""

    def __init__(self, name: str, arm: Arm, links: Sequence[str]) -> None:
        chain = _chain(name, arm)
        frames = [arm.base_frame, *(link_frame(arm, link) for link in links)]
        # A joint's quaternion is linear in the sine and cosine of half its angle, for any rotation at angle zero.
        at_zero = [normalised(joint.place.quaternion_xyzw) for joint in chain.links]
        self._of_cosine = np.array(at_zero)
        self._of_sine = np.array([multiply(turn, (x, y, z, 0.0))
                                  for turn, (x, y, z) in zip(at_zero, chain.axes.tolist(), strict=True)])
        self._edges = [encode.transform(0, parent, child, joint.place.matrix)
                       for parent, child, joint in zip(frames, frames[1:], chain.links, strict=False)]

    def transforms(self, stamp: Time, joints: NDArray[np.float64]) -> list[TransformStamped]:
        """Return the transforms at ``joints`` (J,) [rad]; the next call changes the same messages."""
        half = joints[:, None] / 2
        turns = (np.sin(half) * self._of_sine + np.cos(half) * self._of_cosine).tolist()
        for edge, (x, y, z, w) in zip(self._edges, turns, strict=True):
            edge.header.stamp = stamp
            turn = edge.transform.rotation
            turn.x, turn.y, turn.z, turn.w = x, y, z, w
        return self._edges


def _chain(name: str, arm: Arm) -> Chain:
    return required_chain(name, arm, 'link transforms need it')
