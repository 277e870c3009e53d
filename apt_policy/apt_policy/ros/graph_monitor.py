"""Who is at the other end of our topics: other publishers, and those who cannot be heard or cannot hear.

It asks the ROS graph, one topic at a time, and names the nodes that it finds. Events of the
middleware tell the same, but without a name, and each of them makes every turn of the
executor dearer. What follows from an answer is the loop's matter.
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

# How rmw words its objections.
_OBJECTIONS = {'RELIABILITY': 'reliable subscription', 'DURABILITY': 'transient local',
               'DEADLINE': 'deadline', 'LIVELINESS': 'liveliness'}


_DISCOVERY_NS = 1_000_000_000
_UNDISCOVERED_NS = 10 * 10**9

# As rmw calls a node of which it knows endpoints and not the name.
_UNNAMED = ('_NODE_NAME_UNKNOWN_', '_NODE_NAMESPACE_UNKNOWN_')


def other_publishers(node: Node, publishers: Sequence[Publisher]) -> tuple[str, ...]:
    """``topic (by node)`` for each publisher on our topics that is not ours."""
    own = (node.get_name(), node.get_namespace())
    others = []
    for publisher in publishers:
        topic = publisher.topic_name
        found = [(info.node_name, info.node_namespace) for info in node.get_publishers_info_by_topic(topic)]
        others += [f'{topic} (by {namespace.rstrip("/")}/{name})'
                   for name, namespace in exclude_own_publisher(found, own)]
    return tuple(others)


def exclude_own_publisher(found: Sequence[tuple[str, str]], own: tuple[str, str]) -> list[tuple[str, str]]:
    """``found`` without the one that is ours, as name and namespace of its node.

    A node of our own name counts as another one: exactly one publisher per topic is ours. For a
    moment the graph may have lost the name of even that one.
    """
    others = list(found)
    ours = next((entry for entry in (own, _UNNAMED) if entry in others), None)
    if ours is not None:
        others.remove(ours)
    return others


class QosMonitor:
    """Goes round our topics and reports ends that do not fit; call :meth:`check_one` now and then."""

    def __init__(self, node: Node, publishers: Sequence[Publisher], subscriptions: Sequence[Subscription],
                 report: Callable[[str, str], None]) -> None:
        """``report`` is given the topic and one sentence."""
        self._node = node
        self._publishers = tuple(publishers)
        self._subscriptions = tuple(subscriptions)
        self._report = report
        self._round: Iterator[Callable[[], None]] = iter(())

    def check_one(self) -> None:
        """Check one topic."""
        check = next(self._round, None)
        if check is None:
            self._round = self._checks()
        else:
            check()

    def _checks(self) -> Iterator[Callable[[], None]]:
        for subscription in self._subscriptions:
            yield partial(self._check_heard, subscription)
        for publisher in self._publishers:
            yield partial(self._check_hearers, publisher)

    def _check_heard(self, subscription: Subscription) -> None:
        topic, kind = subscription.topic_name, _type_name(subscription.msg_type)
        for end in self._node.get_publishers_info_by_topic(topic):
            wrong = _difference(end, kind, end.qos_profile, _explicit(subscription.qos_profile))
            if wrong:
                self._report(topic, f'{_name(end)} publishes {topic} with {wrong[0]}: none of its messages '
                                    f'arrive; {wrong[1]}')

    def _check_hearers(self, publisher: Publisher) -> None:
        topic, kind = publisher.topic_name, _type_name(publisher.msg_type)
        for end in self._node.get_subscriptions_info_by_topic(topic):
            wrong = _difference(end, kind, _explicit(publisher.qos_profile), end.qos_profile)
            if wrong:
                self._report(topic, f'{_name(end)} subscribes to {topic} with {wrong[0]}: it receives '
                                    f'nothing; {wrong[1]}')


class GoalClientMonitor:
    """Notices that the client of an action's goal has left the graph.

    A goal does not say who sent it: rclpy keeps the sender's identity to itself. So whoever listens to the action's
    feedback when the goal comes, as every action client does, stands for its client. Where several listen, the goal
    counts as wanted until all of them have left; and one that was killed leaves the graph only when its lease ends
    (20 s with Fast DDS as shipped), where one that ends by itself leaves at once.
    """

    def __init__(self, node: Node, action: str) -> None:
        """Watch clients of ``action``, which ``node`` offers."""
        self._node = node
        self._topic = f'{node.resolve_topic_name(action)}/_action/feedback'
        self._known: set[tuple[int, ...]] = set()
        self._expected_ns = self._seen_ns = 0

    def track_goal(self, steady_ns: int) -> None:
        """A goal came: whoever listens now, or is discovered in the next moment, is its client."""
        self._known = set()
        self._expected_ns = self._seen_ns = steady_ns

    def absent_s(self, steady_ns: int) -> float:
        """How long none of them has listened any more [s]; call it regularly.

        One that was never discovered is given ten seconds more.
        """
        present = {tuple(end.endpoint_gid) for end in self._node.get_subscriptions_info_by_topic(self._topic)}
        # The request may arrive before the rest of its sender is discovered; on a busy machine long before.
        if not self._known or steady_ns - self._expected_ns < _DISCOVERY_NS:
            self._known |= present
        if self._known & present:
            self._seen_ns = steady_ns
        patience_ns = 0 if self._known else _UNDISCOVERED_NS
        return max(0, steady_ns - self._seen_ns - patience_ns) / 1e9


def _difference(end: TopicEndpointInfo, kind: str, offered: QoSProfile,
                requested: QoSProfile) -> tuple[str, str] | None:
    """What does not fit and what to do about it."""
    if end.topic_type != kind:
        return f'type {end.topic_type} in place of {kind}', 'use one message type'
    compatibility, reason = qos_check_compatible(offered, requested)
    if compatibility != QoSCompatibility.ERROR:
        return None
    policy = next((name for name, words in _OBJECTIONS.items() if words in reason.lower()), 'QoS')
    return f'incompatible {policy}', remedy(policy)


def _explicit(profile: QoSProfile) -> QoSProfile:
    """As the graph would tell it: what was left open means none, where rclpy writes zero."""
    return QoSProfile(
        depth=profile.depth, reliability=profile.reliability, durability=profile.durability,
        deadline=profile.deadline if profile.deadline.nanoseconds else Infinite,
        liveliness=LivelinessPolicy.AUTOMATIC, liveliness_lease_duration=Infinite)


def _name(end: TopicEndpointInfo) -> str:
    return f'{end.node_namespace.rstrip("/")}/{end.node_name}'


def _type_name(kind: Any) -> str:
    package, space = kind.__module__.split('.')[:2]
    return f'{package}/{space}/{kind.__name__}'
