"""What node, recorder and converter of each shipped contract really read, and who says it, is the table of streams."""

import os
from functools import partial
from pathlib import Path

import domain_coordinator
import pytest
import rclpy
from rclpy.parameter import Parameter

from apt_control.ik_bridge import IkBridge
from apt_policy.core import topics
from apt_policy.core.contract import load_contract
from apt_policy.core.stream_spec import ROLE_QOS, Need, Reliability, StreamKind
from apt_policy.core.stream_table import StreamTable
from apt_policy.inference.hover_planner import HoverPlanner
from apt_policy.ros.policy_node import PolicyNode
from apt_recorder.bag_writer import BagConfig, BagWriter
from apt_recorder.episode_marker import EpisodeMarker
from apt_recorder.recorder import Recorder
from apt_recorder.streams import recorded_streams
from apt_recorder.writer_thread import WriterThread
from apt_sim.tasks.demonstrator_node import DemonstratorNode
from apt_sim.world.simulator import SimulatorNode
from apt_training.convert.rosbag import config
from apt_training.convert.rosbag.bag_reader import TopicSummary
from apt_training.convert.rosbag.topic_routes import find_routes
from apt_training.convert.source import ConvertError

CONTRACTS = sorted((Path(__file__).parents[1] / 'apt_bringup' / 'config').glob('aloha*.yaml'))
SWITCHED_ON = {StreamKind.DEAD_MAN: ('dead_man_timeout_s', 1.0), StreamKind.CLOCK: ('use_sim_time', True)}
"""Streams that the policy node hears on request only."""
SAID_BY_PEOPLE = {StreamKind.DEAD_MAN}
TRUTH = {f'/{topics.SIM_OBJECTS}', f'/{topics.SIM_REAL_TIME_FACTOR}'}
"""What the simulator says beside the robot's streams."""
ROS_OWN = {'/parameter_events', '/rosout'}


@pytest.fixture(params=CONTRACTS, ids=lambda path: path.stem)
def contract(request):
    """A shipped contract, which every node of this process is started with."""
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    with domain_coordinator.domain_id() as number:
        rclpy.init(domain_id=number, args=['--ros-args', '-p', f'contract:={request.param}'])
        yield load_contract(request.param)
        rclpy.shutdown()


@pytest.fixture
def policy(contract):
    """Makes a configured policy node with these parameters."""
    nodes = []

    def make(**values):
        node = PolicyNode(make_factory=lambda params, contract: partial(HoverPlanner, delay_s=0.02),
                          parameter_overrides=[Parameter(name, value=value) for name, value in
                                               {'worker': 'thread', **values}.items()])
        nodes.append(node)
        node.trigger_configure()
        return node

    yield make
    for node in nodes:
        node.destroy_node()


def full(topic):
    return topic if topic.startswith('/') else f'/{topic}'


def ends(endpoints):
    """Topic, type, depth, reliability and durability of publishers or subscriptions, but for those that ROS adds."""
    found = [(one.topic_name, f'{one.msg_type.__module__.split(".")[0]}/msg/{one.msg_type.__name__}', one.qos_profile)
             for one in endpoints if one.topic_name not in ROS_OWN]
    return sorted((topic, kind, quality.depth, quality.reliability.name, quality.durability.name)
                  for topic, kind, quality in found)


def expected(specs, depth=None):
    return sorted((full(spec.topic), spec.type_name, depth(spec) if depth else ROLE_QOS[spec.role].depth,
                   'RELIABLE' if ROLE_QOS[spec.role].reliability is Reliability.RELIABLE else 'BEST_EFFORT',
                   'TRANSIENT_LOCAL' if ROLE_QOS[spec.role].latched else 'VOLATILE') for spec in specs)


def test_the_policy_node_hears_the_streams_that_it_needs_and_no_others(contract, policy):
    needed = [spec for spec in StreamTable(contract) if spec.need.node is not None]
    assert ends(policy().subscriptions) == expected([one for one in needed if one.kind not in SWITCHED_ON])


def test_the_policy_node_hears_a_switch_and_a_clock_where_it_is_told_to(contract, policy):
    heard = ends(policy(**dict(SWITCHED_ON.values())).subscriptions)
    needed = expected([spec for spec in StreamTable(contract) if spec.need.node is not None])
    # The quality of its clock is rclpy's own choice.
    assert [one for one in heard if one[0] != '/clock'] == [one for one in needed if one[0] != '/clock']
    assert [one[:2] for one in heard] == [one[:2] for one in needed]


def test_the_recorder_hears_the_streams_that_it_needs_and_no_others(contract, tmp_path):
    recorder = Recorder(recorded_streams(contract), marker=EpisodeMarker(), min_rate=0.8, unstamped=(), report=print)
    writer = WriterThread(BagWriter(tmp_path / 'bag', BagConfig()), capacity_bytes=2**20, report=print)
    needed = [spec for spec in StreamTable(contract) if spec.need.recorder is not None]
    deep = partial(expected, depth=lambda spec: max(ROLE_QOS[spec.role].depth, 30 if spec.role.value == 'sensor' else
                                                    100))
    try:
        # Other nodes take the subscription to episode marks as the sign that recording began.
        assert ends(recorder.subscriptions) == deep([one for one in needed if one.kind is not StreamKind.EPISODE_MARK])
        recorder.start(writer)
        assert ends(recorder.subscriptions) == deep(needed)
    finally:
        recorder.stop()
        writer.close(dict)
        recorder.destroy_node()


def test_the_converter_reads_the_streams_that_it_needs_and_no_others(contract):
    chosen = config.RosbagConversionConfig(split=config.SegmentationMode.BAG)
    bag = {full(spec.topic): TopicSummary(spec.type_name, 1) for spec in StreamTable(contract)}
    routes = find_routes(contract, chosen, bag, bag='bag')
    needed = {full(spec.topic): spec for spec in StreamTable(contract) if spec.need.converter is not None}
    assert {topic: route.spec for topic, route in routes.items()} == needed
    for topic, spec in needed.items():
        assert spec.type_name in routes[topic].type_names
        without = {name: found for name, found in bag.items() if name != topic}
        if spec.need.converter in (Need.STEADY, Need.ONCE):
            with pytest.raises(ConvertError, match=rf'{topic} .* is missing'):
                find_routes(contract, chosen, without, bag='bag')
        else:
            assert find_routes(contract, chosen, without, bag='bag').keys() == needed.keys() - {topic}


def test_all_that_the_graph_says_and_hears_is_in_the_table_with_its_type(contract, policy):
    table = {full(spec.topic): spec.type_name for spec in StreamTable(contract)}
    nodes = [IkBridge(), SimulatorNode(), DemonstratorNode()]
    everybody = [policy(), *nodes]
    said = {end[:2] for node in everybody for end in ends(node.publishers) if end[0] not in TRUTH}
    heard = {end[:2] for node in everybody for end in ends(node.subscriptions) if end[0] not in TRUTH}
    for node in nodes:
        node.destroy_node()
    assert said | heard <= table.items()
    assert table.keys() - dict(said).keys() == {
        full(spec.topic) for spec in StreamTable(contract) if spec.kind in SAID_BY_PEOPLE}


def test_no_two_streams_share_a_topic_or_a_label(contract):
    streams = list(StreamTable(contract))
    assert len({spec.topic for spec in streams}) == len({spec.label for spec in streams}) == len(streams)
