"""Endpoints of a node for streams of the table: message class, quality of service, and who says so when ends disagree.

It knows no topic names and decides nothing about what a missing stream means.
"""

import importlib
from collections.abc import Callable
from typing import Any

from rclpy.duration import Duration
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind
from rclpy.subscription import Subscription

from apt_policy.core.stream_spec import ROLE_QOS, Reliability, Role, StreamSpec

_RELIABILITY = {Reliability.BEST_EFFORT: ReliabilityPolicy.BEST_EFFORT,
                Reliability.RELIABLE: ReliabilityPolicy.RELIABLE}


def profile(role: Role, *, reliability: Reliability | None = None, deadline_s: float = 0.0) -> QoSProfile:
    """The profile of a topic with this role.

    Args:
        reliability: in place of the role's own.
        deadline_s: longest gap between two messages [s]; 0 asks for none. A subscription
            that asks for one hears only publishers that offer one.
    """
    chosen = ROLE_QOS[role]
    quality = QoSProfile(
        depth=chosen.depth,
        reliability=_RELIABILITY[reliability or chosen.reliability],
        durability=DurabilityPolicy.TRANSIENT_LOCAL if chosen.latched else DurabilityPolicy.VOLATILE)
    if deadline_s > 0.0:
        quality.deadline = Duration(nanoseconds=round(deadline_s * 1e9))
    return quality


def message_class(type_name: str) -> Any:
    """The Python class of a message type such as ``sensor_msgs/msg/Image``."""
    package, _, name = type_name.split('/')
    return getattr(importlib.import_module(f'{package}.msg'), name)


def subscribe(node: Node, stream: StreamSpec, callback: Callable[[Any], None], *, quality: QoSProfile | None = None,
              events: SubscriptionEventCallbacks | None = None) -> Subscription:
    """Listen to a stream.

    Args:
        quality: in place of the stream's own.
    """
    return node.create_subscription(message_class(stream.type_name), stream.topic, callback,
                                    quality or profile(stream.role), event_callbacks=events)


def advertise(node: Node, stream: StreamSpec, *, quality: QoSProfile | None = None,
              events: PublisherEventCallbacks | None = None) -> Publisher:
    """Offer to publish a stream.

    Args:
        quality: in place of the stream's own.
    """
    return node.create_publisher(message_class(stream.type_name), stream.topic, quality or profile(stream.role),
                                 event_callbacks=events)


def subscription_events(topic: str, report: Callable[[str, str], None], *,
                        deadline_s: float = 0.0) -> SubscriptionEventCallbacks:
    """Callbacks that turn what the middleware notices about a subscription into words.

    Each event costs the executor as much as a subscription, so only those that can come are asked for.

    Args:
        report: given the topic and one sentence, whenever a publisher cannot be heard or is late.
        deadline_s: of the subscription's profile.
    """
    def incompatible(event: Any) -> None:
        policy = str(qos_policy_name_from_kind(event.last_policy_kind))
        report(topic, f'a publisher of {topic} offers incompatible {policy}: none of its messages arrive; '
                      f'{remedy(policy)}')

    return SubscriptionEventCallbacks(
        incompatible_qos=incompatible, deadline=_late(topic, report) if deadline_s > 0.0 else None,
        use_default_callbacks=False)


def deadline_events(topic: str, report: Callable[[str, str], None], *,
                    deadline_s: float) -> SubscriptionEventCallbacks:
    """The same for a node that looks for publishers it cannot hear in the graph (``ros.graph_monitor``)."""
    return SubscriptionEventCallbacks(
        deadline=_late(topic, report) if deadline_s > 0.0 else None, use_default_callbacks=False)


def no_events() -> PublisherEventCallbacks:
    """For publishers of a node that looks for those who cannot hear it in the graph."""
    return PublisherEventCallbacks(use_default_callbacks=False)


def remedy(policy: str) -> str:
    """What to do about two ends that differ in ``policy``."""
    remedies = {
        'RELIABILITY': 'make the publisher reliable or the subscriber best effort',
        'DURABILITY': 'make the publisher transient local or the subscriber volatile',
        'DEADLINE': 'let the publisher offer a deadline or the subscriber ask for none'}
    return remedies.get(policy, 'give both ends the same profile')


def _late(topic: str, report: Callable[[str, str], None]) -> Callable[[Any], None]:
    def late(event: Any) -> None:
        report(topic, f'{topic} missed its deadline ({event.total_count} times so far)')
    return late
