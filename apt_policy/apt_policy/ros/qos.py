"""Publishers and subscriptions for streams of the table: message class, QoS profile and event callbacks."""

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
    """Build the QoS profile of a role.

    Args:
        role: purpose of the topic.
        reliability: reliability; None for the role's.
        deadline_s: longest time between two messages [s]; 0 for none. A subscription with a
            deadline only matches publishers that offer one.
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
    """Import the class of a message type such as ``sensor_msgs/msg/Image``."""
    package, _, name = type_name.split('/')
    return getattr(importlib.import_module(f'{package}.msg'), name)


def subscribe(node: Node, stream: StreamSpec, callback: Callable[[Any], None], *, quality: QoSProfile | None = None,
              events: SubscriptionEventCallbacks | None = None) -> Subscription:
    """Subscribe to a stream.

    Args:
        node: node of the subscription.
        stream: stream to subscribe to.
        callback: receiver of the messages.
        quality: QoS profile; None for the stream's.
        events: event callbacks.
    """
    return node.create_subscription(message_class(stream.type_name), stream.topic, callback,
                                    quality or profile(stream.role), event_callbacks=events)


def advertise(node: Node, stream: StreamSpec, *, quality: QoSProfile | None = None,
              events: PublisherEventCallbacks | None = None) -> Publisher:
    """Create the publisher of a stream.

    Args:
        node: node of the publisher.
        stream: stream to publish.
        quality: QoS profile; None for the stream's.
        events: event callbacks.
    """
    return node.create_publisher(message_class(stream.type_name), stream.topic, quality or profile(stream.role),
                                 event_callbacks=events)


def subscription_events(topic: str, report: Callable[[str, str], None], *,
                        deadline_s: float = 0.0) -> SubscriptionEventCallbacks:
    """Create callbacks that report the middleware's events of a subscription as sentences.

    Each event handler costs the executor as much as a subscription, so only events that can occur are handled.

    Args:
        topic: topic of the subscription.
        report: called with the topic and one sentence when a publisher is incompatible or late.
        deadline_s: deadline of the subscription's profile [s].
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
    """Create callbacks for missed deadlines only, for a node whose QosMonitor finds incompatible publishers."""
    return SubscriptionEventCallbacks(
        deadline=_late(topic, report) if deadline_s > 0.0 else None, use_default_callbacks=False)


def no_events() -> PublisherEventCallbacks:
    """Create empty callbacks, for a node whose QosMonitor finds incompatible subscriptions."""
    return PublisherEventCallbacks(use_default_callbacks=False)


def remedy(policy: str) -> str:
    """Return the remedy for two endpoints that differ in ``policy``."""
    remedies = {
        'RELIABILITY': 'make the publisher reliable or the subscriber best effort',
        'DURABILITY': 'make the publisher transient local or the subscriber volatile',
        'DEADLINE': 'let the publisher offer a deadline or the subscriber ask for none'}
    return remedies.get(policy, 'give both ends the same profile')


def _late(topic: str, report: Callable[[str, str], None]) -> Callable[[Any], None]:
    def late(event: Any) -> None:
        report(topic, f'{topic} missed its deadline ({event.total_count} times so far)')
    return late
