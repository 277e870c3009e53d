"""Monitors of the ROS graph: other publishers of targets, incompatible QoS, and clients of action goals.

The graph is queried one topic at a time, so that reports name the nodes. Middleware events report
incompatible QoS too, but without a name, and each event handler makes every turn of the
executor slower.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from rclpy.duration import Infinite
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import LivelinessPolicy, QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo

from apt_policy.ros.qos import remedy

# Words in rmw's reasons for incompatible QoS.
_OBJECTIONS = {'RELIABILITY': 'reliable subscription', 'DURABILITY': 'transient local',
               'DEADLINE': 'deadline', 'LIVELINESS': 'liveliness'}
# Time after a goal within which its client may still be discovered.
_DISCOVERY_NS = 1_000_000_000
# Further time for a client that was never discovered.
_UNDISCOVERED_NS = 10 * 10**9

# Name that rmw gives to a node whose endpoints it knows but not its name.
_UNNAMED = ('_NODE_NAME_UNKNOWN_', '_NODE_NAMESPACE_UNKNOWN_')


def other_publishers(node: Node, publishers: Sequence[Publisher]) -> tuple[str, ...]:
    """List ``topic (by node)`` for each publisher on the topics of ``publishers`` that belongs to another node."""
    own = (node.get_name(), node.get_namespace())
    others = []
    for publisher in publishers:
        topic = publisher.topic_name
        found = [(info.node_name, info.node_namespace) for info in node.get_publishers_info_by_topic(topic)]
        others += [f'{topic} (by {namespace.rstrip("/")}/{name})'
                   for name, namespace in exclude_own_publisher(found, own)]
    return tuple(others)


def exclude_own_publisher(found: Sequence[tuple[str, str]], own: tuple[str, str]) -> list[tuple[str, str]]:
    """Return ``found`` without the own publisher.

    Exactly one publisher per topic is the own one, so a second one of the same node name remains. The graph may
    lack the name of the own node for a moment.

    Args:
        found: node name and namespace of each publisher of a topic.
        own: name and namespace of the own node.
    """
    others = list(found)
    ours = next((entry for entry in (own, _UNNAMED) if entry in others), None)
    if ours is not None:
        others.remove(ours)
    return others


class QosMonitor:
    """Monitor that reports endpoints with incompatible QoS or type; call :meth:`check_one` regularly."""

    def __init__(self, node: Node, publishers: Sequence[Publisher], subscriptions: Sequence[Subscription],
                 report: Callable[[str, str], None]) -> None:
        """Create the monitor.

        Args:
            node: node of the endpoints.
            publishers: own publishers.
            subscriptions: own subscriptions.
            report: called with the topic and one sentence.
        """
        self._node = node
        self._publishers = tuple(publishers)
        self._subscriptions = tuple(subscriptions)
        self._report = report
        self._round: Iterator[Callable[[], None]] = iter(())

    def check_one(self) -> None:
        """Check the next topic in turn."""
        check = next(self._round, None)
        if check is None:
            self._round = self._checks()
        else:
            check()

    def _checks(self) -> Iterator[Callable[[], None]]:
        for subscription in self._subscriptions:
            yield partial(self._check_publishers, subscription)
        for publisher in self._publishers:
            yield partial(self._check_subscriptions, publisher)

    def _check_publishers(self, subscription: Subscription) -> None:
        topic, kind = subscription.topic_name, _type_name(subscription.msg_type)
        for end in self._node.get_publishers_info_by_topic(topic):
            wrong = _difference(end, kind, end.qos_profile, _explicit(subscription.qos_profile))
            if wrong:
                self._report(topic, f'{_name(end)} publishes {topic} with {wrong[0]}: none of its messages '
                                    f'arrive; {wrong[1]}')

    def _check_subscriptions(self, publisher: Publisher) -> None:
        topic, kind = publisher.topic_name, _type_name(publisher.msg_type)
        for end in self._node.get_subscriptions_info_by_topic(topic):
            wrong = _difference(end, kind, _explicit(publisher.qos_profile), end.qos_profile)
            if wrong:
                self._report(topic, f'{_name(end)} subscribes to {topic} with {wrong[0]}: it receives '
                                    f'nothing; {wrong[1]}')


class GoalClientMonitor:
    """Monitor that detects when the client of an action's goal has left the graph.

    rclpy does not expose the sender of a goal. Every subscriber of the action's feedback at the time of the goal is
    therefore taken as its client, because every action client subscribes to it. With several subscribers, the goal
    lasts until all of them have left. A killed client leaves the graph only when its lease ends (20 s with Fast DDS
    as shipped); a client that shuts down leaves at once.
    """

    def __init__(self, node: Node, action: str) -> None:
        """Monitor the clients of ``action``, whose server is ``node``."""
        self._node = node
        self._topic = f'{node.resolve_topic_name(action)}/_action/feedback'
        self._known: set[tuple[int, ...]] = set()
        self._expected_ns = self._seen_ns = 0

    def track_goal(self, steady_ns: int) -> None:
        """Start monitoring the client of a new goal at ``steady_ns``."""
        self._known = set()
        self._expected_ns = self._seen_ns = steady_ns

    def absent_s(self, steady_ns: int) -> float:
        """Return for how long the client has been absent [s]; call it regularly.

        A client that was never discovered is absent only after ten further seconds.
        """
        present = {tuple(end.endpoint_gid) for end in self._node.get_subscriptions_info_by_topic(self._topic)}
        # The goal may arrive before its sender's endpoints are discovered, on a busy machine long before.
        if not self._known or steady_ns - self._expected_ns < _DISCOVERY_NS:
            self._known |= present
        if self._known & present:
            self._seen_ns = steady_ns
        patience_ns = 0 if self._known else _UNDISCOVERED_NS
        return max(0, steady_ns - self._seen_ns - patience_ns) / 1e9


def _difference(end: TopicEndpointInfo, kind: str, offered: QoSProfile,
                requested: QoSProfile) -> tuple[str, str] | None:
    """Return an incompatibility and its remedy, None if the endpoints match."""
    if end.topic_type != kind:
        return f'type {end.topic_type} in place of {kind}', 'use one message type'
    compatibility, reason = qos_check_compatible(offered, requested)
    if compatibility != QoSCompatibility.ERROR:
        return None
    policy = next((name for name, words in _OBJECTIONS.items() if words in reason.lower()), 'QoS')
    return f'incompatible {policy}', remedy(policy)


def _explicit(profile: QoSProfile) -> QoSProfile:
    """Return ``profile`` as the graph reports it: unset durations are infinite, where rclpy has zero."""
    return QoSProfile(
        depth=profile.depth, reliability=profile.reliability, durability=profile.durability,
        deadline=profile.deadline if profile.deadline.nanoseconds else Infinite,
        liveliness=LivelinessPolicy.AUTOMATIC, liveliness_lease_duration=Infinite)


def _name(end: TopicEndpointInfo) -> str:
    return f'{end.node_namespace.rstrip("/")}/{end.node_name}'


def _type_name(kind: Any) -> str:
    package, space = kind.__module__.split('.')[:2]
    return f'{package}/{space}/{kind.__name__}'
