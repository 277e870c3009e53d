"""How often the pixels of a camera are copied between the middleware and the resize."""

import tracemalloc

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image

from apt_policy.core.align import ObservationAssembler
from apt_policy.core.contract import load_contract
from apt_policy.core.sample import Observation
from apt_policy.core.transforms import StampedTransform, TransformBuffer
from apt_policy.ros import encode

WIDTH, HEIGHT = 640, 480
STAMP_NS = 50_000_000_000


@pytest.mark.parametrize(('encoding', 'copies'), [('rgb8', 0), ('bgr8', 1)])
def test_a_camera_costs_at_most_one_copy_of_its_image_before_the_resize(contract_file, encoding, copies):
    contract = load_contract(contract_file)
    transforms = TransformBuffer()
    for child in ('left/ee', 'right/ee', 'wrist_optical'):
        transforms.set_static_transform(StampedTransform(
            parent=f'{"right" if child.startswith("right") else "left"}/base', child=child, stamp_ns=STAMP_NS,
            translation=(0.2, 0.0, 0.3), quaternion_xyzw=(0.0, 0.0, 0.0, 1.0)))
    assembler = ObservationAssembler(contract, transforms)
    camera = np.array([[600.0, 0.0, 319.5], [0.0, 600.0, 239.5], [0.0, 0.0, 1.0]])
    sent = encode.image(STAMP_NS, 'top_optical', np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    sent.encoding = encoding
    # As they come out of the middleware, one buffer each.
    images = {name: deserialize_message(serialize_message(sent), Image) for name in contract.cameras}
    for name in contract.cameras:
        assembler.add_camera_info(name, encode.camera_info(STAMP_NS, name, camera, WIDTH, HEIGHT))
    for name, arm in contract.arms.items():
        assembler.add_joint_state(name, encode.joint_state(
            STAMP_NS, [*arm.joints, arm.gripper_state.joint], [0.0, 0.0, 0.05]), STAMP_NS)
    tracemalloc.start()
    try:
        for name, image in images.items():
            assembler.add_image(name, image, STAMP_NS)
        stored, _ = tracemalloc.get_traced_memory()
        observation = assembler.snapshot(STAMP_NS, 'wave')
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(observation, Observation)
    one_image = WIDTH * HEIGHT * 3
    assert stored < 0.2 * one_image, 'storing keeps a reference; other threads allocate a little'
    # One camera is decoded after the other; what halving makes is a third of an image.
    assert peak < (copies + 0.7) * one_image, 'one more copy would be a whole image; other threads allocate a little'
