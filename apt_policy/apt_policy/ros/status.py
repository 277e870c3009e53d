"""Reports of the policy node: status, diagnostics, and one log line per hold."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from apt_msgs.msg import PolicyStatus
from rclpy.node import Node

from apt_policy.core.sample import Hold, HoldReason
from apt_policy.core.stream_spec import FIXED_STREAMS, StreamKind
from apt_policy.core.streams import StreamReport
from apt_policy.inference.ports import Clock, SteadyClock
from apt_policy.inference.report import LoopStatus
from apt_policy.ros import encode, encode_policy
from apt_policy.ros.qos import advertise, no_events

_OK, _WARN, _ERROR = 0, 1, 2
# Time within which a hold for the same cause is not logged again.
_REPEAT_S = 1.0
# Lines per stream in that time: a camera that flickers may have another fault in every image.
_MOST_FAULTS = 3
_QUIET = (HoldReason.NONE, HoldReason.INACTIVE, HoldReason.DISABLED, HoldReason.NO_PROMPT)
"""Holds that are no errors."""


@dataclass(frozen=True, kw_only=True)
class StatusReport:
    """Report of the node at one instant."""

    hold: Hold
    """Hold with explanations for the user."""
    status: LoopStatus | None
    """Status of the loop; None while unconfigured."""
    streams: Sequence[StreamReport] = ()


class StatusPublisher:
    """Publisher of ``apt/status`` and ``/diagnostics``, in every state of the node."""

    def __init__(self, node: Node) -> None:
        """Create both publishers."""
        self._node = node
        self._status, self._diagnostics = (
            advertise(node, FIXED_STREAMS[kind], events=no_events())
            for kind in (StreamKind.STATUS, StreamKind.DIAGNOSTICS))

    def send_status(self, report: StatusReport) -> None:
        """Publish ``apt/status``."""
        now_ns = self._node.get_clock().now().nanoseconds
        if report.status is None:
            self._status.publish(PolicyStatus(
                header=encode.header(now_ns, ''), hold_reason=int(report.hold.reason),
                detail=report.hold.detail, holds=[0] * len(HoldReason), inference_time_p50=math.nan,
                inference_time_p95=math.nan, latency_p50=math.nan, latency_p95=math.nan))
        else:
            self._status.publish(encode_policy.policy_status(
                replace(report.status, hold=report.hold), report.streams, stamp_ns=now_ns,
                detail=report.hold.detail))

    def send_diagnostics(self, report: StatusReport) -> None:
        """Publish ``/diagnostics``: the policy, and each stream against the contract."""
        name = self._node.get_fully_qualified_name()
        rows = [_policy_row(name, report), *(_stream_row(name, stream) for stream in report.streams)]
        self._diagnostics.publish(encode.diagnostics(self._node.get_clock().now().nanoseconds, name, rows))


class HoldLog:
    """Log of holds: one line per hold, without repeats while the reason alternates between known causes."""

    def __init__(self, node: Node, clock: Clock | None = None) -> None:
        """Log through ``node``."""
        self._logger = node.get_logger()
        self._clock = clock or SteadyClock()
        self._logged: dict[tuple[HoldReason, str | None], list[tuple[int, str]]] = {}

    def log_hold(self, hold: Hold) -> None:
        """Log the start of a hold; reason NONE logs that targets are published."""
        now_ns = self._clock.now_ns()
        # Another fault of the same stream is logged; another age of a stale stream is not.
        fault = hold.detail if hold.reason is HoldReason.BAD_INPUT else ''
        cause = (hold.reason, hold.stream)
        recent = [(at_ns, told) for at_ns, told in self._logged.get(cause, ()) if now_ns - at_ns < _REPEAT_S * 1e9]
        self._logged[cause] = recent
        if len(recent) >= _MOST_FAULTS or fault in {told for _, told in recent}:
            return
        recent.append((now_ns, fault))
        if hold.reason is HoldReason.NONE:
            self._logger.info('publishing targets')
        elif hold.reason in _QUIET:
            self._logger.info(f'hold {hold.reason.name}: {hold.detail}')
        else:
            self._logger.warning(f'hold {hold.reason.name}: {hold.detail}; the arms keep their last command')


def slow_streams(streams: Sequence[StreamReport]) -> dict[str, str]:
    """Describe the streams that are slower than the contract's rate, one sentence by stream name."""
    return {s.stream: f'{s.stream} arrives at {s.rate_hz:.1f} Hz, the contract says {s.expected_hz:g}: '
                      f'messages are missing{_transport_hint()}'
            for s in streams if not s.ok and 0.0 <= s.age_s <= s.max_age_s}


def _transport_hint() -> str:
    if os.environ.get('FASTRTPS_DEFAULT_PROFILES_FILE') or os.environ.get('RMW_IMPLEMENTATION'):
        return ''
    return ('; FASTRTPS_DEFAULT_PROFILES_FILE is not set, and Fast DDS loses images without the suite\'s '
            'profile: source scripts/env.sh')


def _policy_row(name: str, report: StatusReport) -> tuple[str, int, str, dict[str, str]]:
    level = _OK if report.hold.reason in _QUIET else _ERROR
    message = report.hold.reason.name + (f': {report.hold.detail}' if report.hold.detail else '')
    if report.status is None:
        return f'{name}: policy', level, message, {}
    status, counts = report.status, report.status.counts
    held = {f'ticks held {reason.name}': str(count)
            for reason, count in zip(HoldReason, counts.holds, strict=True) if count}
    return f'{name}: policy', level, message, {
        'enabled': str(status.enabled), 'prompt': status.prompt, 'epoch': str(status.epoch),
        'worker': status.worker.value, 'targets sent': str(counts.targets_sent), 'chunks': str(counts.chunks),
        'chunks dropped': str(counts.chunks_dropped), 'ticks clamped': str(status.clamped_ticks),
        'inference p50 [s]': f'{counts.inference.p50_s:.3f}',
        'latency p50 [s]': f'{counts.latency.p50_s:.3f}', **held}


def _stream_row(name: str, stream: StreamReport) -> tuple[str, int, str, dict[str, str]]:
    values = {'age [s]': f'{stream.age_s:.3f}', 'max age [s]': f'{stream.max_age_s:g}',
              'rate [Hz]': f'{stream.rate_hz:.1f}', 'expected [Hz]': f'{stream.expected_hz:g}'}
    if stream.ok:
        level, message = _OK, 'ok'
    elif stream.age_s < 0:
        level, message = _ERROR, 'no message yet'
    elif stream.age_s > stream.max_age_s:
        level, message = _ERROR, 'too old'
    else:
        level, message = _WARN, 'too few messages'
    return f'{name}: {stream.stream}', level, message, values
