"""Callbacks in a thread of their own, on real rclpy: how the block ends."""

import threading
from collections.abc import Iterator

import domain_coordinator
import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node

from apt_policy.ros.callbacks import Callbacks


@pytest.fixture(scope='module')
def node() -> Iterator[Node]:
    context = Context()
    with domain_coordinator.domain_id() as number:
        rclpy.init(context=context, domain_id=number)
        node = rclpy.create_node('callbacks', context=context)
        yield node
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def _fail_while_ending(node: Node, fail) -> threading.Event:
    """Run a callback that calls ``fail`` once the block has begun to end."""
    stop, runs, ends = threading.Event(), threading.Event(), threading.Event()

    def callback() -> None:
        runs.set()
        ends.wait(30.0)
        fail()
    timer = node.create_timer(0.01, callback)
    try:
        with Callbacks(node, stop) as _:
            assert runs.wait(30.0)
            threading.Timer(0.2, ends.set).start()
    finally:
        node.destroy_timer(timer)
    return stop


def test_a_failure_of_a_callback_stops_the_program_and_is_raised_at_the_end(node):
    stop = threading.Event()

    def fail() -> None:
        raise ValueError('a callback failed')
    timer = node.create_timer(0.01, fail)
    with pytest.raises(ValueError, match='a callback failed'), Callbacks(node, stop):
        assert stop.wait(30.0)
    node.destroy_timer(timer)


def test_a_missing_attribute_of_the_nodes_own_is_raised_while_the_block_ends_too(node):
    with pytest.raises(AttributeError, match='no attribute'):
        _fail_while_ending(node, lambda: object().missing)


def test_what_rclpy_raises_about_entities_put_away_while_the_block_ends_is_no_failure(node):
    # rclpy's race cannot be called up; code that bears its module's name raises the same.
    put_away = {'__name__': 'rclpy.executors'}
    exec('def fail():\n    None.handle\n', put_away)
    assert not _fail_while_ending(node, put_away['fail']).is_set()
