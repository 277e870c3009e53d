"""The shipped Fast DDS profile carries camera images from process to process without loss."""

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from apt_bringup.graph import fastdds_profile

PACKAGE = Path(__file__).resolve().parents[2]
PROFILES = (PACKAGE / 'config' / 'fastdds.xml', PACKAGE / 'config' / 'fastdds_small.xml')
RATE_HZ = 30
FRAMES = 75
TOPICS = ('cam_high', 'cam_low', 'cam_left_wrist', 'cam_right_wrist')

# Publishes only once every topic is heard, so that each frame counts.
CAMERAS = f'''
import time, rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node('cameras')
publishers = [node.create_publisher(Image, topic, qos_profile_sensor_data) for topic in {TOPICS}]
image = Image(height=480, width=640, encoding='rgb8', step=1920)
image.data = bytes(640 * 480 * 3)
deadline = time.monotonic() + 30
while not all(p.get_subscription_count() for p in publishers) and time.monotonic() < deadline:
    time.sleep(0.05)
time.sleep(0.5)
for _ in range({FRAMES}):
    for publisher in publishers:
        publisher.publish(image)
    time.sleep(1 / {RATE_HZ})
time.sleep(0.5)
'''


@pytest.mark.skipif(os.environ.get('RMW_IMPLEMENTATION', 'rmw_fastrtps_cpp') != 'rmw_fastrtps_cpp',
                    reason='the profile is for Fast DDS')
@pytest.mark.usefixtures('isolated')
@pytest.mark.parametrize('profile', PROFILES, ids=lambda p: p.name)
def test_four_raw_camera_streams_cross_processes_without_loss(profile, monkeypatch):
    monkeypatch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', str(profile))
    received = dict.fromkeys(TOPICS, 0)

    def count(topic):
        def heard(_: Image) -> None:
            received[topic] += 1
        return heard

    rclpy.init()
    node = rclpy.create_node('policy')
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    # What a listener with no time drops from its own history is not the transport's loss.
    patient = QoSProfile(depth=FRAMES, reliability=ReliabilityPolicy.BEST_EFFORT)
    subscriptions = [node.create_subscription(Image, topic, count(topic), patient) for topic in TOPICS]
    cameras = subprocess.Popen([sys.executable, '-c', CAMERAS])
    try:
        deadline = time.monotonic() + 60
        while cameras.poll() is None and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.1)
    finally:
        cameras.kill()
        cameras.wait()
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown()
    assert len(subscriptions) == len(TOPICS)
    assert all(frames >= 0.9 * FRAMES for frames in received.values()), received


@pytest.mark.parametrize('profile', PROFILES, ids=lambda p: p.name)
def test_the_profile_lets_traffic_leave_the_machine_too(profile):
    """Shared memory alone would cut off a robot whose drivers run on another computer."""
    name = '{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}'
    kinds = {element.text for element in ET.parse(profile).iter(f'{name}type')}
    assert kinds == {'SHM', 'UDPv4'}


def test_the_profile_follows_the_shared_memory_of_the_machine(monkeypatch):
    def with_free(megabytes):
        status = os.statvfs_result((4096, 4096, 0, 0, megabytes * 256, *[0] * 5))
        monkeypatch.setattr(os, 'statvfs', lambda _: status)
        return fastdds_profile(PACKAGE)
    assert (with_free(2000), with_free(64)) == PROFILES


def test_the_environment_script_decides_as_the_launch_files_do():
    script = PACKAGE.parent / 'scripts' / 'env.sh'
    without = {k: v for k, v in os.environ.items() if k != 'FASTRTPS_DEFAULT_PROFILES_FILE'}
    shown = subprocess.run(['bash', '-c', f'. {script} && echo $FASTRTPS_DEFAULT_PROFILES_FILE'], env=without,
                           capture_output=True, text=True, timeout=60, check=True)
    assert Path(shown.stdout.strip()).name == fastdds_profile(PACKAGE).name
