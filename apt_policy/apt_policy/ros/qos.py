"""Which quality of service each kind of topic has, and who says so when two ends disagree.

One table for the whole suite, by role. It knows no topic names and decides nothing
about what a missing stream means.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rclpy.duration import Duration
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind


class Reliability(Enum):
    """What a subscription to a sensor asks for."""

    BEST_EFFORT = 'best_effort'
    RELIABLE = 'reliable'


class Role(Enum):
    """What a topic is for."""

    SENSOR = 'sensor'
    STATE = 'state'
    TRANSFORM = 'transform'
    STATIC_TRANSFORM = 'static_transform'
    TARGET = 'target'
    COMMAND = 'command'
    LATCHED = 'latched'
    PLAN = 'plan'
    STATUS = 'status'


@dataclass(frozen=True, kw_only=True)
class _Row:
    depth: int
    reliability: Reliability = Reliability.RELIABLE
    latched: bool = False


_TABLE = {
    # The newest image is the only one that matters, and a queue would make it old.
    Role.SENSOR: _Row(depth=1, reliability=Reliability.BEST_EFFORT),
    # Best effort hears reliable publishers as well, the other way round nothing arrives.
    Role.STATE: _Row(depth=10, reliability=Reliability.BEST_EFFORT),
    # As tf2's own listener: many publishers share the topic, and a dropped edge hurts for long.
    Role.TRANSFORM: _Row(depth=100),
    Role.STATIC_TRANSFORM: _Row(depth=100, latched=True),
    Role.TARGET: _Row(depth=1),
    Role.COMMAND: _Row(depth=10),
    Role.LATCHED: _Row(depth=1, latched=True),
    Role.PLAN: _Row(depth=5),
    Role.STATUS: _Row(depth=10),
}
_RELIABILITY = {Reliability.BEST_EFFORT: ReliabilityPolicy.BEST_EFFORT,
                Reliability.RELIABLE: ReliabilityPolicy.RELIABLE}


def profile(role: Role, *, reliability: Reliability | None = None, deadline_s: float = 0.0) -> QoSProfile:
    """The profile of a topic with this role.

    Args:
        reliability: in place of the role's own.
        deadline_s: longest gap between two messages [s]; 0 asks for none. A subscription
            that asks for one hears only publishers that offer one.
    """
    row = _TABLE[role]
    quality = QoSProfile(
        depth=row.depth,
        reliability=_RELIABILITY[reliability or row.reliability],
        durability=DurabilityPolicy.TRANSIENT_LOCAL if row.latched else DurabilityPolicy.VOLATILE)
    if deadline_s > 0.0:
        quality.deadline = Duration(nanoseconds=round(deadline_s * 1e9))
    return quality


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
    """The same for a node that looks for publishers it cannot hear in the graph (``ros.watch``)."""
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
