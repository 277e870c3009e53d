"""Transforms from /tf and /tf_static: the same answers from every implementation on this machine."""

import time

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from tf2_msgs.msg import TFMessage

from apt_policy.core.geometry import make_pose
from apt_policy.core.transforms import (
    LATEST,
    ExtrapolationError,
    TransformError,
    UnconnectedError,
    UnknownFrameError,
)
from apt_policy.ros import encode
from apt_policy.ros.qos import Role, profile
from apt_policy.ros.transforms import available_listeners

S = 1_000_000_000


def _at(x):
    return make_pose(np.eye(3), (x, 0.0, 0.0))


@pytest.fixture(params=list(available_listeners()))
def feed(request, domain):
    """It has heard base->hand at 10 s (x 1) and 11 s (x 2), static hand->eye (x 0.5), other->thing."""
    about = {'namespace': 'tf_test',
             'cli_args': ['--ros-args', '-r', '/tf:=tf', '-r', '/tf_static:=tf_static']}
    talker, node = rclpy.create_node('talker', **about), rclpy.create_node('hearer', **about)
    static = talker.create_publisher(TFMessage, '/tf_static', profile(Role.STATIC_TRANSFORM))
    static.publish(TFMessage(transforms=[encode.transform(S, 'hand', 'eye', _at(0.5)),
                                         encode.transform(S, 'other', 'thing', _at(9.0))]))
    moving = talker.create_publisher(TFMessage, '/tf', profile(Role.TRANSFORM))
    remarks = []
    heard = available_listeners()[request.param](node, lambda topic, text: remarks.append((topic, text)))
    heard.remarks, heard.name = remarks, request.param
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def tell(*transforms, until):
        # By time, not by turns: what /tf brings ends a turn long before /tf_static has been discovered.
        deadline_s = time.monotonic() + 60.0
        while time.monotonic() < deadline_s:
            moving.publish(TFMessage(transforms=list(transforms)))
            executor.spin_once(timeout_sec=0.05)
            if until():
                return
        raise AssertionError('the transforms did not arrive')

    def known():
        try:
            return heard.latest_common_ns('base', 'eye') == 11 * S
        except TransformError:
            return False
    heard.tell = tell
    tell(encode.transform(10 * S, 'base', 'hand', _at(1.0)),
         encode.transform(11 * S, 'base', 'hand', _at(2.0)), until=known)
    yield heard
    heard.close()
    executor.shutdown()
    node.destroy_node()
    talker.destroy_node()


def test_it_interpolates_between_two_instants_through_a_static_link(feed):
    np.testing.assert_allclose(feed.lookup('base', 'eye', 10 * S + S // 4), _at(1.75), atol=1e-9)


def test_latest_is_the_newest_common_instant(feed):
    assert feed.latest_common_ns('base', 'eye') == 11 * S
    np.testing.assert_allclose(feed.lookup('base', 'eye', LATEST), _at(2.5), atol=1e-9)


def test_a_static_link_answers_for_any_instant(feed):
    assert feed.latest_common_ns('hand', 'eye') == 0
    np.testing.assert_allclose(feed.lookup('eye', 'hand', 5 * S), _at(-0.5), atol=1e-9)


@pytest.mark.parametrize(('target', 'source', 'stamp_ns', 'kind'), [
    ('base', 'nose', LATEST, UnknownFrameError), ('base', 'thing', LATEST, UnconnectedError),
    ('base', 'hand', 12 * S, ExtrapolationError), ('base', 'hand', 9 * S, ExtrapolationError)])
def test_it_refuses_what_it_cannot_know_at_once_and_names_the_frames(feed, target, source, stamp_ns, kind):
    with pytest.raises(kind) as error:
        feed.lookup(target, source, stamp_ns)
    assert target in str(error.value) and source in str(error.value)


def test_after_a_clear_only_static_links_are_known(feed):
    feed.clear()
    with pytest.raises(TransformError):
        feed.lookup('base', 'hand', 10 * S)


def test_a_transform_that_is_not_finite_changes_nothing(feed):
    broken = encode.transform(12 * S, 'base', 'hand', _at(float('nan')))
    if feed.name == 'own':
        feed.tell(broken, until=lambda: feed.remarks)
        assert 'must be finite' in feed.remarks[0][1]
    assert feed.latest_common_ns('base', 'hand') == 11 * S
