"""Node that records the topics of the demonstration.

It subscribes over DDS like any user's node; the graph does not depend on it.
"""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
from apt_msgs.msg import ActionChunk, EndEffectorTarget, PolicyStatus
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from apt_demos.demo.recording import ArmTrack, Recording, StreamRate, VideoFrame
from apt_policy.core.contract import RobotContract
from apt_policy.core.decode import decode_camera_info, decode_image, decode_transform, stamp_to_ns
from apt_policy.core.geometry import pose_from_quaternion
from apt_policy.core.sample import HoldReason
from apt_policy.core.stream_spec import Role, StreamKind
from apt_policy.core.stream_table import StreamTable
from apt_policy.core.transforms import TransformBuffer, TransformError
from apt_policy.ros.qos import advertise, profile, subscribe

VIDEO_HZ = 8.0
"""Frame rate of the video on the robot's clock [Hz]."""
OVERVIEW = 'cam_high'
"""Camera shown large in the video; plans are drawn into its images."""

_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 90]
_FRAME_STEP_NS = round(1e9 / VIDEO_HZ)

Pose = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Target:
    stamp_ns: int
    base_from_ee: Pose
    gripper: float


class DemoRecorder(Node):
    """Node that records targets, reached poses, plans, status and images from :meth:`start` to :meth:`finish`."""

    def __init__(self, contract: RobotContract, overview: str, *, use_sim_time: bool) -> None:
        """Create publisher and subscriptions.

        Args:
            contract: description of the robot.
            overview: camera whose images determine the frames of the video.
            use_sim_time: take the time from /clock.
        """
        super().__init__('demo', parameter_overrides=[Parameter('use_sim_time', value=use_sim_time)])
        self.status: PolicyStatus | None = None
        self.active_prompt = ''
        self.intrinsics: NDArray[np.float64] | None = None
        self._contract = contract
        self._overview = overview
        self._transforms = TransformBuffer()
        self._targets: dict[str, list[_Target]] = {name: [] for name in contract.arms}
        self._tracks: dict[str, list[tuple[_Target, Pose]]] = {name: [] for name in contract.arms}
        self._received = dict.fromkeys(contract.arms, 0)
        self._images: dict[str, Image] = {}
        self._next_frame_ns = 0
        self._plans: dict[str, NDArray[np.float64]] = {}
        self._frames: list[VideoFrame] = []
        self._began: tuple[int, float, PolicyStatus] | None = None
        self._streams = StreamTable(contract)
        self._prompts = advertise(self, self._streams.find(StreamKind.PROMPT))
        self._subscribe()
        self.create_timer(0.1, self._resolve)

    def _subscribe(self) -> None:
        # The bridge's profile keeps only the newest target; the recording needs all of them.
        every = profile(Role.TARGET)
        every.depth = 200
        find = self._streams.find
        for name in self._contract.arms:
            subscribe(self, find(StreamKind.TARGET, name), self._on_target, quality=every)
        for name in self._contract.cameras:
            subscribe(self, find(StreamKind.IMAGE, name), partial(self._on_image, name))
        subscribe(self, find(StreamKind.CAMERA_INFO, self._overview), self._on_info)
        for kind, callback in (
                (StreamKind.CHUNK, self._on_chunk), (StreamKind.STATUS, self._on_status),
                (StreamKind.ACTIVE_PROMPT, self._on_prompt), (StreamKind.TRANSFORMS, self._on_transforms),
                (StreamKind.STATIC_TRANSFORMS, self._on_static_transforms)):
            subscribe(self, find(kind), callback)

    # Called by the demonstration -------------------------------------------------------------

    def publish_prompt(self, prompt: str) -> None:
        """Publish an instruction on the prompt topic."""
        self._prompts.publish(String(data=prompt))

    def start(self) -> None:
        """Start the recording.

        Raises:
            RuntimeError: the policy has not published its status yet.
        """
        if self.status is None:
            raise RuntimeError('the policy has not published its status; wait for it before start()')
        self._targets = {name: [] for name in self._contract.arms}
        self._tracks = {name: [] for name in self._contract.arms}
        self._received = dict.fromkeys(self._contract.arms, 0)
        self._frames = []
        self._next_frame_ns = 0
        self._began = (self.get_clock().now().nanoseconds, time.monotonic(), self.status)

    def elapsed_s(self) -> float:
        """Return the time since :meth:`start` on the clock of the stamps [s]."""
        return (self.get_clock().now().nanoseconds - self._began[0]) / 1e9 if self._began else 0.0

    def finish(self) -> Recording:
        """End the recording and return it.

        Raises:
            RuntimeError: :meth:`start` was not called.
        """
        if self._began is None or self.status is None:
            raise RuntimeError('finish() was called before start(); call start() first')
        self._resolve()
        _, wall, before = self._began
        duration_s, wall_s = self.elapsed_s(), time.monotonic() - wall
        now, self._began = self.status, None
        holds = {HoldReason(i).name: int(after) - int(first)
                 for i, (after, first) in enumerate(zip(now.holds, before.holds, strict=True))}
        return Recording(
            control_rate_hz=self._contract.control_rate_hz, duration_s=duration_s, wall_s=wall_s,
            arms={name: _track(rows) for name, rows in self._tracks.items()},
            targets_sent=min(self._received.values()), chunks=now.chunks - before.chunks,
            streams=tuple(StreamRate(stream=s.stream, rate_hz=s.rate, expected_hz=s.expected_rate)
                          for s in now.streams if s.expected_rate),
            holds={name: ticks for name, ticks in holds.items() if ticks},
            latency_s=(now.latency_p50, now.latency_p95),
            inference_s=(now.inference_time_p50, now.inference_time_p95), frames=tuple(self._frames))

    # Callbacks ---------------------------------------------------------------------------------

    def _on_target(self, message: EndEffectorTarget) -> None:
        if self._began:
            self._received[message.arm] += 1
            self._targets[message.arm].append(_Target(
                stamp_ns=stamp_to_ns(message.header.stamp), base_from_ee=_matrix(message.pose),
                gripper=message.gripper))

    def _on_chunk(self, message: ActionChunk) -> None:
        self._plans = {arm.arm: np.array([[p.position.x, p.position.y, p.position.z] for p in arm.poses])
                       for arm in message.arms}

    def _on_status(self, message: PolicyStatus) -> None:
        self.status = message

    def _on_prompt(self, message: String) -> None:
        self.active_prompt = message.data

    def _on_info(self, message: CameraInfo) -> None:
        self.intrinsics = decode_camera_info(message).intrinsics

    def _on_transforms(self, message: TFMessage) -> None:
        for transform in message.transforms:
            self._transforms.set_transform(decode_transform(transform))

    def _on_static_transforms(self, message: TFMessage) -> None:
        for transform in message.transforms:
            self._transforms.set_static_transform(decode_transform(transform))

    def _on_image(self, name: str, message: Image) -> None:
        if not self._began:
            return
        self._images[name] = message
        stamp_ns = stamp_to_ns(message.header.stamp)
        if name == self._overview and stamp_ns >= self._next_frame_ns:
            self._next_frame_ns = max(self._next_frame_ns, stamp_ns - _FRAME_STEP_NS) + _FRAME_STEP_NS
            reason = HoldReason(self.status.hold_reason) if self.status else HoldReason.NONE
            self._frames.append(VideoFrame(
                stamp_ns=stamp_ns, jpegs={name: _jpeg(image) for name, image in self._images.items()},
                plans=self._plans, prompt=self.active_prompt, holding=reason.name if reason else ''))

    def _resolve(self) -> None:
        """Pair targets with the pose of the arm at their due time, as far as TF is available."""
        for name, waiting in self._targets.items():
            arm = self._contract.arms[name]
            pending = []
            for target in waiting:
                try:
                    reached = self._transforms.lookup(arm.base_frame, arm.ee_frame, target.stamp_ns)
                except TransformError:
                    pending.append(target)
                else:
                    self._tracks[name].append((target, reached))
            self._targets[name] = pending


def _jpeg(message: Image) -> bytes:
    bgr = cv2.cvtColor(decode_image(message), cv2.COLOR_RGB2BGR)
    return cv2.imencode('.jpg', bgr, _JPEG)[1].tobytes()


def _matrix(pose: Any) -> NDArray[np.float64]:
    p, q = pose.position, pose.orientation
    return pose_from_quaternion([p.x, p.y, p.z], [q.x, q.y, q.z, q.w])


def _track(rows: list[tuple[_Target, Pose]]) -> ArmTrack:
    return ArmTrack(
        stamp_ns=np.array([target.stamp_ns for target, _ in rows], dtype=np.int64),
        base_from_target=np.array([target.base_from_ee for target, _ in rows]).reshape(-1, 4, 4),
        base_from_reached=np.array([reached for _, reached in rows]).reshape(-1, 4, 4),
        gripper=np.array([target.gripper for target, _ in rows], dtype=np.float64))
