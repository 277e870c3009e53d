"""Bags to episodes: how much the converter costs beyond what the images cost.

Four cameras of 640x480 at 30 Hz, joint states of two arms and TF at 100 Hz.

- ``convert_over_bare_loop``: a JPEG bag, every image of which becomes part of a frame, against a bare loop
  on the same core that reads the bag, decodes, resizes and encodes those images; in turns, medians.
- ``convert_two_process_speedup``: four such bags in two processes against one.
- ``convert_raw_s_per_gb``: bags of raw images at the contract's step, in two processes.
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

# A core is what is measured: libraries must not take the other one.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import cv2
import numpy as np
from ledger import record
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from apt_policy.core.contract import Arm, RobotContract, load_contract
from apt_policy.core.geometry import pose_to_quaternion
from apt_policy.core.kinematics import forward_kinematics
from apt_training.convert.executors import run_in_pool, run_in_process
from apt_training.convert.job_runner import OutputConfig
from apt_training.convert.rosbag.config import RosbagConversionConfig
from apt_training.convert.rosbag.job import RosbagJob
from apt_training.episodes.episode import ImageStorage

ROOT = Path(__file__).resolve().parents[1]
CONTRACT = ROOT / 'apt_bringup' / 'config' / 'aloha.yaml'
COMMAND = 'python benchmarks/bench_convert.py'
WIDTH, HEIGHT, CAMERA_HZ, STATE_HZ = 640, 480, 30, 100
JPEG_S, RAW_S, SPEEDUP_BAGS, RAW_BAGS, ROUNDS = 4.0, 3.5, 4, 2, 5
START_NS = 1_700_000_000_000_000_000
QUALITY = 95


def photograph(rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) with detail at every scale, as a camera gives: 60 to 70 kB as a JPEG of quality 90."""
    total = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for size in (2, 4, 8, 16, 32, 64):
        noise = rng.normal(0, size ** 0.6, (HEIGHT // size + 1, WIDTH // size + 1, 3)).astype(np.float32)
        total += cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return ((total - total.min()) / np.ptp(total) * 255).astype(np.uint8)


def write_bag(path: Path, contract: RobotContract, seconds: float, *, compressed: bool) -> int:
    """Record the robot; returns the bytes of the bag."""
    store = get_typestore(Stores.ROS2_JAZZY)
    rng = np.random.default_rng(0)
    pictures = [photograph(rng) for _ in range(8)]

    def make(kind: str, **fields: Any) -> Any:
        return store.types[kind](**fields)

    def header(at: int, frame: str = '') -> Any:
        return make('std_msgs/msg/Header', frame_id=frame,
                    stamp=make('builtin_interfaces/msg/Time', sec=at // 10**9, nanosec=at % 10**9))

    jpegs = [cv2.imencode('.jpg', picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].ravel()
             for picture in pictures]
    messages: list[tuple[int, str, str, Callable[[int], Any]]] = []
    image_kind = f'sensor_msgs/msg/{"CompressedImage" if compressed else "Image"}'

    def photo(picture: int, frame: str, at: int) -> Any:
        if compressed:
            return make(image_kind, header=header(at, frame), format='jpeg', data=jpegs[picture])
        return make(image_kind, header=header(at, frame), height=HEIGHT, width=WIDTH, encoding='rgb8', is_bigendian=0,
                    step=3 * WIDTH, data=pictures[picture].reshape(-1))

    def joints(arm: Arm, at: int) -> Any:
        return make('sensor_msgs/msg/JointState', header=header(at), name=[*arm.joints, arm.gripper_state.joint],
                    position=np.array([*arm.start, 0.04]), velocity=np.zeros(0), effort=np.zeros(0))

    for place, camera in enumerate(contract.cameras.values()):
        for index in range(int(seconds * CAMERA_HZ)):
            at = START_NS + index * 10**9 // CAMERA_HZ + place * 1_000_000
            picture = (index + place) % len(pictures)
            topic = f'/{camera.image_topic}{"/compressed" if compressed else ""}'
            messages.append((at, topic, image_kind, partial(photo, picture, camera.frame)))
            messages.append((at, f'/{camera.info_topic}', 'sensor_msgs/msg/CameraInfo', lambda at: make(
                'sensor_msgs/msg/CameraInfo', header=header(at), height=HEIGHT, width=WIDTH, distortion_model='',
                d=np.zeros(5), k=np.array([600.0, 0, 320, 0, 600, 240, 0, 0, 1]), r=np.eye(3).ravel(), p=np.zeros(12),
                binning_x=0, binning_y=0, roi=make('sensor_msgs/msg/RegionOfInterest', x_offset=0, y_offset=0, height=0,
                                                   width=0, do_rectify=False))))
    links = [(arm.base_frame, arm.ee_frame, chain.base_from_ee(arm.start)) for arm, chain in
             zip(contract.arms.values(), forward_kinematics(contract).values(), strict=True)]
    links += [(contract.arms[camera.tf_anchor].ee_frame, camera.frame, np.eye(4))
              for camera in contract.cameras.values() if camera.tf_anchor]
    for index in range(int(seconds * STATE_HZ)):
        at = START_NS + index * 10**9 // STATE_HZ
        for arm in contract.arms.values():
            messages.append((at, f'/{arm.joint_states_topic}', 'sensor_msgs/msg/JointState', partial(joints, arm)))
        messages.append((at, '/tf', 'tf2_msgs/msg/TFMessage', lambda at: make('tf2_msgs/msg/TFMessage', transforms=[
            transform(make, header(at, parent), child, pose) for parent, child, pose in links])))
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, Any] = {}
        for at, topic, kind, build in sorted(messages, key=lambda one: one[0]):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], at + 2_000_000, store.serialize_cdr(build(at), kind))
    return sum(file.stat().st_size for file in path.iterdir())


def transform(make: Callable[..., Any], header: Any, child: str, pose: np.ndarray) -> Any:
    (x, y, z), (qx, qy, qz, qw) = pose_to_quaternion(pose)
    return make('geometry_msgs/msg/TransformStamped', header=header, child_frame_id=child, transform=make(
        'geometry_msgs/msg/Transform', translation=make('geometry_msgs/msg/Vector3', x=x, y=y, z=z),
        rotation=make('geometry_msgs/msg/Quaternion', x=qx, y=qy, z=qz, w=qw)))


def bare_loop(path: Path, size: int) -> int:
    """Read, decode, resize and encode every image; returns how many."""
    store, count = get_typestore(Stores.ROS2_JAZZY), 0
    with Reader(path) as reader:
        wanted = [one for one in reader.connections if one.msgtype == 'sensor_msgs/msg/CompressedImage']
        for one, _, raw in reader.messages(wanted):
            message: Any = store.deserialize_cdr(raw, one.msgtype)
            picture = cv2.imdecode(message.data, cv2.IMREAD_COLOR)
            assert picture is not None, 'every image of the bag was encoded here'
            small = cv2.resize(picture, (size, size * HEIGHT // WIDTH), interpolation=cv2.INTER_AREA)
            cv2.imencode('.jpg', small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
            count += 1
    return count


def seconds_for(work: Callable[[], int]) -> tuple[float, int]:
    """How long it took, and what it returned."""
    began = time.perf_counter()
    returned = work()
    return time.perf_counter() - began, returned


def unit(path: Path, contract: RobotContract, **settings: Any) -> RosbagJob:
    return RosbagJob(name=path.name, path=str(path), contract=contract, config=RosbagConversionConfig(**settings))


def convert(units: list[RosbagJob], folder: Path, jobs: int) -> int:
    """Returns the frames that came out; ``jobs`` 0 stays in this process."""
    shutil.rmtree(folder, ignore_errors=True)
    output = OutputConfig(folder=folder, storage=ImageStorage.JPEG, jpeg_quality=QUALITY)
    output.folder.mkdir()

    def quiet(*_: object) -> None:
        pass

    outcomes = list(run_in_pool(units, output, quiet, workers=jobs) if jobs else run_in_process(units, output, quiet))
    bad = [one.error or one.report.damage or one.refused for one in outcomes if one.failed or one.refused]
    if bad:
        raise RuntimeError(f'the conversion failed: {bad[0]}')
    return sum(one.frames for one in outcomes)


def main() -> None:
    cv2.setNumThreads(1)
    contract = load_contract(CONTRACT)
    with tempfile.TemporaryDirectory(prefix='bench-convert-') as temporary:
        folder = Path(temporary)
        jpeg = folder / 'jpeg_0'
        write_bag(jpeg, contract, JPEG_S, compressed=True)
        every = unit(jpeg, contract, reference='cam_right_wrist')
        ratios, bare_ms = [], []
        for _ in range(ROUNDS):
            bare_s, images = seconds_for(lambda: bare_loop(jpeg, contract.image_size))
            own_s, frames = seconds_for(lambda: convert([every], folder / 'out', 0))
            # Per image: the first frames lack a stream that has not begun.
            ratios.append((own_s / (4 * frames)) / (bare_s / images))
            bare_ms.append(1e3 * bare_s / images)
        record(name='convert_bare_loop_ms', value=statistics.median(bare_ms), unit='ms per image', goal='',
               command=COMMAND)
        record(name='convert_over_bare_loop', value=statistics.median(ratios), unit='x', goal='<= 1.3', command=COMMAND)

        several = [every]
        for index in range(1, SPEEDUP_BAGS):
            copy = folder / f'jpeg_{index}'
            shutil.copytree(jpeg, copy)
            several.append(unit(copy, contract, reference='cam_right_wrist'))
        speedups = [seconds_for(lambda: convert(several, folder / 'out', 1))[0]
                    / seconds_for(lambda: convert(several, folder / 'out', 2))[0] for _ in range(3)]
        record(name='convert_two_process_speedup', value=statistics.median(speedups), unit='x', goal='>= 1.7',
               command=COMMAND)

        raw, size = [], 0
        for index in range(RAW_BAGS):
            size += write_bag(folder / f'raw_{index}', contract, RAW_S, compressed=False)
            raw.append(unit(folder / f'raw_{index}', contract))
        spent = [seconds_for(lambda: convert(raw, folder / 'out', 2))[0] for _ in range(2)]
        record(name='convert_raw_s_per_gb', value=min(spent) / (size / 1e9), unit='s/GB', goal='< 10', command=COMMAND)


if __name__ == '__main__':
    main()
