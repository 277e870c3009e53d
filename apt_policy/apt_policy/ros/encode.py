"""Encoding of the core's values as ROS messages; the inverse of ``core.decode``.

Poses are (4, 4) matrices, stamps nanoseconds, images (H, W, 3) RGB.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion, Transform, TransformStamped, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Header

from apt_policy.core.geometry import pose_to_quaternion
from apt_policy.ros.stamps import to_time


def header(stamp_ns: int, frame: str) -> Header:
    """Encode a header."""
    return Header(stamp=to_time(stamp_ns), frame_id=frame)


def quaternion(pose: NDArray[np.float64]) -> Quaternion:
    """Encode the rotation of a (4, 4) pose as a quaternion with w >= 0.

    Shepperd's method (1978) in plain floats: for a single rotation scipy takes thirty times as long, and
    the control tick needs two.
    """
    (a, b, c), (d, e, f), (g, h, i) = pose[:3, :3].tolist()
    squares = (1.0 + a - e - i, 1.0 - a + e - i, 1.0 - a - e + i, 1.0 + a + e + i)
    largest = max(range(4), key=squares.__getitem__)
    products = ((squares[0], b + d, c + g, h - f), (b + d, squares[1], f + h, c - g),
                (c + g, f + h, squares[2], d - b), (h - f, c - g, d - b, squares[3]))[largest]
    scale = math.copysign(0.5 / math.sqrt(squares[largest]), products[3])
    x, y, z, w = (scale * product for product in products)
    return Quaternion(x=x, y=y, z=z, w=w)


def point(pose: NDArray[np.float64]) -> Point:
    """Encode the position of a (4, 4) pose [m]."""
    x, y, z = pose[:3, 3].tolist()
    return Point(x=x, y=y, z=z)


def pose(matrix: NDArray[np.float64]) -> Pose:
    """Encode a (4, 4) pose."""
    return Pose(position=point(matrix), orientation=quaternion(matrix))


def poses(matrices: NDArray[np.float64]) -> list[Pose]:
    """Encode (N, 4, 4) poses, in a fraction of the time of N calls of :func:`pose`."""
    offsets, turns = pose_to_quaternion(matrices)
    return [Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))
            for (x, y, z), (qx, qy, qz, qw) in zip(offsets.tolist(), turns.tolist(), strict=True)]


def pose_stamped(stamp_ns: int, frame: str, frame_from_ee: NDArray[np.float64]) -> PoseStamped:
    """Encode a (4, 4) pose expressed in ``frame``."""
    return PoseStamped(header=header(stamp_ns, frame), pose=pose(frame_from_ee))


def transform(stamp_ns: int, parent: str, child: str,
              parent_from_child: NDArray[np.float64]) -> TransformStamped:
    """Encode a transform ``parent_from_child`` (4, 4)."""
    x, y, z = parent_from_child[:3, 3].tolist()
    return TransformStamped(
        header=header(stamp_ns, parent), child_frame_id=child,
        transform=Transform(translation=Vector3(x=x, y=y, z=z), rotation=quaternion(parent_from_child)))


def image(stamp_ns: int, frame: str, rgb: NDArray[np.uint8]) -> Image:
    """Encode an (H, W, 3) image as ``rgb8``."""
    height, width, _ = rgb.shape
    message = Image(header=header(stamp_ns, frame), height=height, width=width, encoding='rgb8',
                    step=3 * width, is_bigendian=0)
    # rclpy copies bytes once; it checks every element of other sequences.
    message.data = rgb.tobytes()
    return message


def camera_info(stamp_ns: int, frame: str, intrinsics: NDArray[np.float64], width: int,
                height: int) -> CameraInfo:
    """Encode the calibration of a rectified pinhole camera.

    Args:
        stamp_ns: stamp of the header [ns].
        frame: TF frame of the optical centre.
        intrinsics: (3, 3) camera matrix [px], pixel centres at +0.5; the message has ROS's convention, in which the
            centre of the first pixel is at (0, 0).
        width: width of the image [px].
        height: height of the image [px].
    """
    matrix = np.array(intrinsics, np.float64)
    matrix[:2, 2] -= 0.5
    projection = np.hstack([matrix, np.zeros((3, 1))])
    return CameraInfo(
        header=header(stamp_ns, frame), width=width, height=height, distortion_model='plumb_bob',
        d=[0.0] * 5, k=matrix.ravel().tolist(), r=np.eye(3).ravel().tolist(),
        p=projection.ravel().tolist())


def joint_state(stamp_ns: int, names: Sequence[str], positions: Sequence[float],
                velocities: Sequence[float] = ()) -> JointState:
    """Encode joint positions [rad or m] and, if given, velocities, in the order of ``names``."""
    return JointState(header=header(stamp_ns, ''), name=list(names),
                      position=[float(p) for p in positions], velocity=[float(v) for v in velocities])


def diagnostics(stamp_ns: int, hardware: str,
                rows: Sequence[tuple[str, int, str, Mapping[str, str]]]) -> DiagnosticArray:
    """Encode the diagnostics of one node.

    Args:
        stamp_ns: stamp of the header [ns].
        hardware: hardware id of all rows.
        rows: name, level (``DiagnosticStatus.OK`` as an integer 0..3), message and details.
    """
    return DiagnosticArray(header=header(stamp_ns, ''), status=[
        DiagnosticStatus(level=bytes([level]), name=name, message=message, hardware_id=hardware,
                         values=[KeyValue(key=key, value=value) for key, value in details.items()])
        for name, level, message, details in rows])
