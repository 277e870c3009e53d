"""Robots, messages and random poses for the tests of core."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore
from scipy.spatial.transform import Rotation

from apt_policy.core.align import ObservationAssembler
from apt_policy.core.contract import RobotContract, contract_from_dict, contract_to_dict, load_contract
from apt_policy.core.geometry import make_pose, pose_to_quaternion
from apt_policy.core.gripper import reading_from_opening
from apt_policy.core.transforms import StampedTransform, TransformBuffer

CONFIG = Path(__file__).resolve().parents[3] / 'apt_bringup' / 'config'


@pytest.fixture(scope='session')
def config() -> Path:
    """The folder of the shipped contracts."""
    return CONFIG


@pytest.fixture(scope='session')
def aloha() -> RobotContract:
    """The shipped contract of the real robot."""
    return load_contract(CONFIG / 'aloha.yaml')


@pytest.fixture
def change(aloha: RobotContract) -> Callable[..., RobotContract]:
    """The shipped contract with fields changed, given as dotted paths."""
    def changed(fields: dict[str, Any]) -> RobotContract:
        plain = contract_to_dict(aloha)
        for path, value in fields.items():
            *parents, last = path.split('.')
            place = plain
            for name in parents:
                place = place[name]
            place[last] = value
        return contract_from_dict(plain, source='test')
    return changed


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20250101)


@pytest.fixture
def random_poses(rng: np.random.Generator) -> Callable[..., np.ndarray]:
    """Poses of any leading shape, within a metre."""
    def draw(*shape: int) -> np.ndarray:
        count = int(np.prod(shape, dtype=int))
        rotation = Rotation.random(count, random_state=rng).as_matrix().reshape(*shape, 3, 3)
        return make_pose(rotation, rng.uniform(-1, 1, (*shape, 3)))
    return draw


def _rclpy_messages() -> SimpleNamespace:
    from builtin_interfaces.msg import Time
    from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState, RegionOfInterest
    from std_msgs.msg import Header
    return SimpleNamespace(
        Time=Time, Header=Header, Image=Image, CompressedImage=CompressedImage, JointState=JointState,
        TransformStamped=TransformStamped, Transform=Transform, Vector3=Vector3, Quaternion=Quaternion,
        camera_info=lambda **fields: CameraInfo(**fields), RegionOfInterest=RegionOfInterest,
        pixels=bytes)


def _rosbags_messages() -> SimpleNamespace:
    store = get_typestore(Stores.ROS2_JAZZY).types
    names = {'Time': 'builtin_interfaces/msg/Time', 'Header': 'std_msgs/msg/Header',
             **{name: f'sensor_msgs/msg/{name}' for name in (
                 'Image', 'CompressedImage', 'JointState', 'RegionOfInterest')},
             **{name: f'geometry_msgs/msg/{name}' for name in (
                 'TransformStamped', 'Transform', 'Vector3', 'Quaternion')}}
    kinds = {name: store[full] for name, full in names.items()}

    def camera_info(**fields: Any) -> Any:
        given = {'distortion_model': '', 'd': np.zeros(0), 'r': np.zeros(9), 'p': np.zeros(12),
                 'binning_x': 0, 'binning_y': 0, **fields}
        given.setdefault('roi', kinds['RegionOfInterest'](0, 0, 0, 0, False))
        return store['sensor_msgs/msg/CameraInfo'](**given)

    return SimpleNamespace(**kinds, camera_info=camera_info,
                           pixels=lambda data: np.frombuffer(data, np.uint8))


@pytest.fixture(params=['rclpy', 'rosbags'])
def messages(request: pytest.FixtureRequest) -> SimpleNamespace:
    """The same message classes from both worlds."""
    return _rclpy_messages() if request.param == 'rclpy' else _rosbags_messages()


class Robot:
    """A robot whose arms turn and move steadily, and everything that it would publish.

    Ten-line truth: each end-effector moves along x at 0.1 m/s and turns about z at 0.2 rad/s; its
    wrist camera sits on it. Image pixels all hold the number of the image.
    """

    def __init__(self, contract: RobotContract, messages: SimpleNamespace) -> None:
        self.contract, self.messages = contract, messages
        self.transforms = TransformBuffer()
        self.assembler = ObservationAssembler(contract, self.transforms)
        self.mount = make_pose(Rotation.from_euler('x', -2.0).as_matrix(), [0.0, 0.05, 0.02])
        for camera in contract.cameras.values():
            if camera.tf_anchor is not None:
                ee = contract.arms[camera.tf_anchor].ee_frame
                self.transforms.set_static_transform(self.link(ee, camera.frame, 0.0, self.mount))

    def base_from_ee(self, stamp_s: float) -> np.ndarray:
        turn = Rotation.from_euler('z', 0.2 * stamp_s).as_matrix()
        return make_pose(turn, [0.1 * stamp_s, 0.0, 0.3])

    def world_from_ee(self, arm: str, stamp_s: float) -> np.ndarray:
        return self.contract.arms[arm].world_from_base.matrix @ self.base_from_ee(stamp_s)

    @staticmethod
    def ns(stamp_s: float) -> int:
        return round(stamp_s * 1e9)

    def header(self, stamp_s: float) -> Any:
        sec, nanosec = divmod(self.ns(stamp_s), 1_000_000_000)
        return self.messages.Header(stamp=self.messages.Time(sec=sec, nanosec=nanosec), frame_id='')

    def link(self, parent: str, child: str, stamp_s: float, pose: np.ndarray) -> StampedTransform:
        translation, quaternion = pose_to_quaternion(pose)
        return StampedTransform(parent=parent, child=child, stamp_ns=self.ns(stamp_s),
                                translation=tuple(translation.tolist()),
                                quaternion_xyzw=tuple(quaternion.tolist()))

    def image(self, stamp_s: float, value: int = 7, encoding: str = 'rgb8', width: int = 64) -> Any:
        return self.messages.Image(
            header=self.header(stamp_s), height=48, width=width, encoding=encoding, is_bigendian=0,
            step=3 * width, data=self.messages.pixels(bytes([value]) * (48 * width * 3)))

    def info(self, k: Any = (60.0, 0, 31.5, 0, 60, 23.5, 0, 0, 1)) -> Any:
        return self.messages.camera_info(header=self.header(1.0), height=48, width=64,
                                         k=np.array(k, np.float64))

    def joints(self, arm: str, stamp_s: float, opening: float = 0.5, **override: float) -> Any:
        facts = self.contract.arms[arm]
        positions = dict.fromkeys((*facts.joints, facts.gripper_state.joint), 0.1)
        positions[facts.gripper_state.joint] = reading_from_opening(opening, facts.gripper_state)
        positions |= override
        return self.messages.JointState(header=self.header(stamp_s), name=list(positions),
                                        position=np.array(list(positions.values())),
                                        velocity=np.zeros(0), effort=np.zeros(0))

    def say_images(self, stamp_s: float, without: tuple[str, ...] = (), value: int = 7) -> None:
        for name in self.contract.cameras:
            if name not in without:
                self.assembler.add_image(name, self.image(stamp_s, value), self.ns(stamp_s))

    def say_state(self, stamp_s: float, without: tuple[str, ...] = ()) -> None:
        for name, arm in self.contract.arms.items():
            if f'{name} joints' not in without:
                self.assembler.add_joint_state(name, self.joints(name, stamp_s), self.ns(stamp_s))
            if f'{name} tf' not in without:
                link = self.link(arm.base_frame, arm.ee_frame, stamp_s, self.base_from_ee(stamp_s))
                self.transforms.set_transform(link)

    def run(self, until_s: float, since_s: float = 1.0, without: tuple[str, ...] = ()) -> None:
        """Infos once, states at 100 Hz and images at 30 Hz, in the order of their stamps."""
        for name in self.contract.cameras:
            if f'{name} info' not in without:
                self.assembler.add_camera_info(name, self.info())
        times = [(stamp, self.say_state) for stamp in np.arange(since_s, until_s + 1e-9, 0.01)]
        times += [(stamp, self.say_images) for stamp in np.arange(since_s, until_s + 1e-9, 1 / 30)]
        for stamp, say in sorted(times, key=lambda entry: entry[0]):
            say(float(stamp), without)


@pytest.fixture
def robot(aloha: RobotContract, messages: SimpleNamespace) -> Robot:
    """The shipped robot, silent so far."""
    return Robot(aloha, messages)


@pytest.fixture
def robot_of(messages: SimpleNamespace) -> Callable[[RobotContract], Robot]:
    """A robot with another contract."""
    return lambda contract: Robot(contract, messages)
