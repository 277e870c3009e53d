"""Recorded robot: its messages as values that tests change, and bags with them.

Messages are built and written with rosbags; no ROS is imported.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from apt_policy.core import topics
from apt_policy.core.contract import RobotContract, contract_from_dict, contract_to_dict
from apt_policy.core.geometry import pose_to_quaternion
from apt_policy.core.gripper import reading_from_opening
from apt_policy.core.kinematics import forward_kinematics
from apt_training.convert.rosbag.config import RosbagConversionConfig
from apt_training.convert.rosbag.job import RosbagJob
from apt_training.convert.source import SkipEpisodeError

ROOT = Path(__file__).resolve().parents[3]
START_NS = 1_700_000_000_000_000_000
LATENCY_NS = 4_000_000
"""Time from the stamp of a message to its arrival [ns]."""
WIDTH, HEIGHT, IMAGE_SIZE = 64, 48, 32
CAMERA_HZ, STATE_HZ = 10.0, 50.0
EE_FROM_CAMERA = [0.02, 0.0, 0.05]


@dataclass(frozen=True, kw_only=True)
class Message:
    """Message to be written to a bag."""

    receive_ns: int
    topic: str
    kind: str
    content: Any


@pytest.fixture(scope='session')
def types():
    """Return the message classes by name, those of this repository included."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for kind in ('apt_msgs/msg/EndEffectorTarget', 'interbotix_xs_msgs/msg/JointGroupCommand',
                 'interbotix_xs_msgs/msg/JointSingleCommand'):
        package, _, name = kind.split('/')
        home = next(path for path in (ROOT / package, ROOT / 'underlay' / package) if path.exists())
        store.register(get_types_from_msg((home / 'msg' / f'{name}.msg').read_text(), kind))
    return store


@pytest.fixture(scope='session')
def contract(aloha: RobotContract) -> RobotContract:
    """Return the shipped contract with slower, smaller cameras."""
    fields = contract_to_dict(aloha)
    fields['image_size'] = IMAGE_SIZE
    for camera in fields['cameras'].values():
        camera['rate_hz'] = CAMERA_HZ
    for arm in fields['arms'].values():
        arm['state_rate_hz'] = STATE_HZ
    return contract_from_dict(fields, source='test')


@pytest.fixture(scope='session')
def change(contract: RobotContract) -> Callable[..., RobotContract]:
    """Return a function that changes fields of the contract, given as dotted paths."""
    def changed(fields: dict[str, Any]) -> RobotContract:
        plain = contract_to_dict(contract)
        for path, value in fields.items():
            *parents, last = path.split('.')
            place = plain
            for name in parents:
                place = place[name]
            place[last] = value
        return contract_from_dict(plain, source='test')
    return changed


@pytest.fixture(scope='session')
def robot(contract: RobotContract, types: Any) -> 'Robot':
    """Return a robot with known motion, and its messages."""
    return Robot(contract, types)


class Robot:
    """Robot with a known motion; every message is a function of time."""

    start_ns = START_NS
    image_size = IMAGE_SIZE
    camera_hz = CAMERA_HZ

    def __init__(self, contract: RobotContract, types: Any) -> None:
        self.contract, self.types = contract, types
        self.chains = forward_kinematics(contract)

    def types_folder(self, package: str) -> Path:
        """Return the folder in which the repository defines its messages."""
        return next(path for path in (ROOT / package, ROOT / 'underlay' / package) if path.exists())

    def make(self, kind: str, **fields: Any) -> Any:
        return self.types.types[kind](**fields)

    def stamp(self, stamp_ns: int) -> Any:
        return self.make('builtin_interfaces/msg/Time', sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)

    def header(self, stamp_ns: int, frame: str = '') -> Any:
        return self.make('std_msgs/msg/Header', stamp=self.stamp(stamp_ns), frame_id=frame)

    def joints(self, name: str, time_s: float) -> np.ndarray:
        arm = self.contract.arms[name]
        phase = 0.3 if name == 'right' else 0.0
        return np.array(arm.start) + 0.2 * np.sin(time_s * np.arange(1, 7) * 0.7 + phase)

    def opening(self, name: str, time_s: float) -> float:
        return 0.5 + 0.4 * np.sin(2.0 * time_s + (name == 'right'))

    def base_from_ee(self, name: str, time_s: float) -> np.ndarray:
        return self.chains[name].base_from_ee(self.joints(name, time_s))

    def world_from_ee(self, name: str, time_s: float) -> np.ndarray:
        return self.contract.arms[name].world_from_base.matrix @ self.base_from_ee(name, time_s)

    def pixels(self, camera: str, time_s: float, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
        """Return an image: red left, green in the middle, blue right; brightness depends on camera and time."""
        place = list(self.contract.cameras).index(camera)
        level = 110 + 20 * place + round(time_s * CAMERA_HZ) % 60
        chart = np.full((height, width, 3), 10, np.uint8)
        for channel in range(3):
            chart[:, channel * width // 3:(channel + 1) * width // 3, channel] = level
        return chart

    def transform(self, stamp_ns: int, parent: str, child: str, pose: np.ndarray) -> Any:
        (x, y, z), (qx, qy, qz, qw) = pose_to_quaternion(pose)
        geometry = 'geometry_msgs/msg/'
        return self.make(geometry + 'TransformStamped', header=self.header(stamp_ns, parent), child_frame_id=child,
                         transform=self.make(geometry + 'Transform',
                                             translation=self.make(geometry + 'Vector3', x=x, y=y, z=z),
                                             rotation=self.make(geometry + 'Quaternion', x=qx, y=qy, z=qz, w=qw)))

    def image(self, camera: str, stamp_ns: int, time_s: float, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Any:
        pixels = self.pixels(camera, time_s, *size)
        return self.make('sensor_msgs/msg/Image', header=self.header(stamp_ns, self.contract.cameras[camera].frame),
                         height=size[0], width=size[1], encoding='rgb8', is_bigendian=0, step=3 * size[1],
                         data=pixels.reshape(-1))

    def compressed(self, camera: str, stamp_ns: int, time_s: float) -> Any:
        _, data = cv2.imencode('.jpg', self.pixels(camera, time_s)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        return self.make('sensor_msgs/msg/CompressedImage', format='rgb8; jpeg compressed bgr8', data=data.ravel(),
                         header=self.header(stamp_ns, self.contract.cameras[camera].frame))

    def camera_info(self, camera: str, stamp_ns: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Any:
        height, width = size
        focal = 0.9 * width
        k = np.array([focal, 0, width / 2 - 0.5, 0, focal, height / 2 - 0.5, 0, 0, 1])
        roi = self.make('sensor_msgs/msg/RegionOfInterest', x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
        return self.make('sensor_msgs/msg/CameraInfo', header=self.header(stamp_ns), height=height, width=width,
                         distortion_model='plumb_bob', d=np.zeros(5), k=k, r=np.eye(3).ravel(), p=np.zeros(12),
                         binning_x=0, binning_y=0, roi=roi)

    def joint_state(self, name: str, stamp_ns: int, time_s: float) -> Any:
        arm = self.contract.arms[name]
        reading = reading_from_opening(self.opening(name, time_s), arm.gripper_state)
        # In an order of their own, as drivers do.
        names = [arm.gripper_state.joint, *reversed(arm.joints)]
        return self.make('sensor_msgs/msg/JointState', header=self.header(stamp_ns), name=names, velocity=np.zeros(0),
                         position=np.array([reading, *reversed(self.joints(name, time_s))]), effort=np.zeros(0))

    def text(self, text: str) -> Any:
        return self.make('std_msgs/msg/String', data=text)

    def target(self, name: str, stamp_ns: int, time_s: float) -> Any:
        """Return the state of the arm 0.15 s later, with the gripper a little more closed."""
        geometry = 'geometry_msgs/msg/'
        (x, y, z), (qx, qy, qz, qw) = pose_to_quaternion(self.base_from_ee(name, time_s + 0.15))
        pose = self.make(geometry + 'Pose', position=self.make(geometry + 'Point', x=x, y=y, z=z),
                         orientation=self.make(geometry + 'Quaternion', x=qx, y=qy, z=qz, w=qw))
        return self.make('apt_msgs/msg/EndEffectorTarget', arm=name, pose=pose, sequence=0, epoch=0,
                         header=self.header(stamp_ns, self.contract.arms[name].base_frame),
                         gripper=self.opening(name, time_s) - 0.1)

    def joint_command(self, name: str, time_s: float) -> Any:
        return self.make('interbotix_xs_msgs/msg/JointGroupCommand', name='arm',
                         cmd=self.joints(name, time_s + 0.15).astype(np.float32))

    def gripper_command(self, name: str, time_s: float) -> Any:
        reading = reading_from_opening(self.opening(name, time_s) - 0.1, self.contract.arms[name].gripper_command)
        return self.make('interbotix_xs_msgs/msg/JointSingleCommand', name='gripper', cmd=reading)

    def stream(self, topic: str, kind: str, rate_hz: float, seconds: float, make: Callable[[int, float], Any], *,
               phase_ns: int = 0) -> list[Message]:
        """Return the messages of a steady stream from 0 s on."""
        period_ns = round(1e9 / rate_hz)
        name = topic if topic.startswith('/') else f'/{topic}'
        return [Message(receive_ns=START_NS + k * period_ns + phase_ns + LATENCY_NS, topic=name, kind=kind,
                        content=make(START_NS + k * period_ns + phase_ns, (k * period_ns + phase_ns) / 1e9))
                for k in range(int(seconds * rate_hz))]

    def word(self, topic: str, time_s: float, text: str) -> Message:
        return Message(receive_ns=START_NS + round(time_s * 1e9), topic=f'/{topic}', kind='std_msgs/msg/String',
                       content=self.text(text))

    def frames(self, seconds: float) -> list[Message]:
        """Return TF with moving end-effectors, and cameras fixed to them."""
        def moving(stamp_ns: int, time_s: float) -> Any:
            return self.make('tf2_msgs/msg/TFMessage', transforms=[
                self.transform(stamp_ns, arm.base_frame, arm.ee_frame, self.base_from_ee(name, time_s))
                for name, arm in self.contract.arms.items()])

        mount = np.eye(4)
        mount[:3, 3] = EE_FROM_CAMERA
        static = self.make('tf2_msgs/msg/TFMessage', transforms=[
            self.transform(START_NS, arm.ee_frame, camera.frame, mount)
            for camera in self.contract.cameras.values() if camera.tf_anchor is not None
            for arm in (self.contract.arms[camera.tf_anchor],)])
        return [Message(receive_ns=START_NS, topic='/tf_static', kind='tf2_msgs/msg/TFMessage', content=static),
                *self.stream('/tf', 'tf2_msgs/msg/TFMessage', STATE_HZ, seconds, moving)]

    def messages(self, seconds: float = 3.0, *, compressed: bool = False, targets: bool = False, joints: bool = False,
                 prompt: str | None = 'pick the cube') -> list[Message]:
        """Return all messages of a recording of the robot, from 0 s on, by arrival."""
        found = self.frames(seconds)
        for place, (name, camera) in enumerate(self.contract.cameras.items()):
            # Cameras are not synchronised with each other.
            phase_ns = place * 7_000_000
            if compressed:
                found += self.stream(f'{camera.image_topic}/compressed', 'sensor_msgs/msg/CompressedImage', CAMERA_HZ,
                                     seconds, lambda at, t, name=name: self.compressed(name, at, t), phase_ns=phase_ns)
            else:
                found += self.stream(camera.image_topic, 'sensor_msgs/msg/Image', CAMERA_HZ, seconds,
                                     lambda at, t, name=name: self.image(name, at, t), phase_ns=phase_ns)
            found += self.stream(camera.info_topic, 'sensor_msgs/msg/CameraInfo', CAMERA_HZ, seconds,
                                 lambda at, t, name=name: self.camera_info(name, at), phase_ns=phase_ns)
        for name, arm in self.contract.arms.items():
            found += self.stream(arm.joint_states_topic, 'sensor_msgs/msg/JointState', STATE_HZ, seconds,
                                 lambda at, t, name=name: self.joint_state(name, at, t), phase_ns=3_000_000)
            if targets:
                found += self.stream(topics.target(name), 'apt_msgs/msg/EndEffectorTarget', STATE_HZ, seconds,
                                     lambda at, t, name=name: self.target(name, at, t))
            if joints:
                found += self.stream(arm.joint_group_topic, 'interbotix_xs_msgs/msg/JointGroupCommand', STATE_HZ,
                                     seconds, lambda at, t, name=name: self.joint_command(name, t))
                found += self.stream(arm.joint_single_topic, 'interbotix_xs_msgs/msg/JointSingleCommand', STATE_HZ,
                                     seconds, lambda at, t, name=name: self.gripper_command(name, t))
        if prompt is not None:
            found.append(self.word(self.contract.prompt_topic, 0.0, prompt))
        return self.in_order(found)

    def in_order(self, messages: Iterable[Message]) -> list[Message]:
        return sorted(messages, key=lambda one: one.receive_ns)

    def without(self, messages: Sequence[Message], topic: str, start_s: float = -1.0, stop_s: float = 1e9
                ) -> list[Message]:
        """Return the messages without a time range of the topics with a suffix."""
        return [one for one in messages if not (one.topic.endswith(topic)
                                                and start_s <= (one.receive_ns - START_NS) / 1e9 < stop_s)]

    def altered(self, messages: Sequence[Message], topic: str, alter: Callable[[Any], Any], start_s: float = -1.0,
                stop_s: float = 1e9) -> list[Message]:
        """Return the messages with their content changed by ``alter``."""
        return [replace(one, content=alter(one.content)) if one.topic.endswith(topic)
                and start_s <= (one.receive_ns - START_NS) / 1e9 < stop_s else one for one in messages]

    def restamped(self, content: Any, stamp: Callable[[int], int]) -> Any:
        """Return a message with another header stamp."""
        if hasattr(content, 'transforms'):
            return replace(content, transforms=[self.restamped(link, stamp) for link in content.transforms])
        old = content.header.stamp
        return replace(content, header=replace(content.header, stamp=self.stamp(stamp(old.sec * 10**9 + old.nanosec))))


@pytest.fixture(scope='session')
def write_bag(types: Any) -> Callable[..., Path]:
    """Write messages as a bag and return its folder."""
    def write(path: Path, messages: Sequence[Message], *, storage: StoragePlugin = StoragePlugin.MCAP,
              version: int = 9, compression: CompressionMode = CompressionMode.NONE) -> Path:
        writer = Writer(path, version=version, storage_plugin=storage)
        if compression is not CompressionMode.NONE:
            writer.set_compression(compression, CompressionFormat.ZSTD)
        with writer:
            connections = {}
            for one in messages:
                if one.topic not in connections:
                    connections[one.topic] = writer.add_connection(one.topic, one.kind, typestore=types)
                writer.write(connections[one.topic], one.receive_ns, types.serialize_cdr(one.content, one.kind))
        return path
    return write


@pytest.fixture
def job(contract: RobotContract) -> Callable[..., RosbagJob]:
    """Return a function that makes the conversion job of a bag."""
    def make(path: Path, contract: RobotContract = contract, **settings: Any) -> RosbagJob:
        config = RosbagConversionConfig(**settings)
        return RosbagJob(name=Path(path).stem, path=str(path), contract=contract, config=config)
    return make


@pytest.fixture
def episodes_of() -> Callable[[RosbagJob], list[Any]]:
    """Return a function that reads all frames of each episode, or the error that skips it."""
    def read(job: RosbagJob) -> list[Any]:
        found = []
        for episode in job.episodes(lambda index: False, lambda share, frames: None):
            try:
                frames = list(episode.frames())
                found.append((episode.facts, frames))
            except SkipEpisodeError as refused:
                found.append(refused)
        return found
    return read
