"""Time base of each stream of a bag, decided from the first seconds of the bag.

A message has a header stamp and a receive time. Frames are sampled on the clock of the stamps; a stream with unusable
stamps uses its receive times. Stamps are read from the bytes without decoding the messages.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from apt_policy.core.cdr import decode_leading_stamp_ns
from apt_policy.core.contract import RobotContract
from apt_policy.core.stream_spec import StreamKind
from apt_policy.core.streams import TimeBase
from apt_training.convert.rosbag.bag_reader import BagReader
from apt_training.convert.rosbag.config import RosbagConversionConfig
from apt_training.convert.rosbag.topic_routes import TF, TopicRoute
from apt_training.convert.source import ConvertError

PEEK_NS = 3_000_000_000
"""Time at the beginning of a bag that is examined [ns]."""
_MAX_SAMPLES = 100
# Clocks with larger offsets are taken for different clocks.
_MAX_OFFSET_S = 1.0
# Stamps that are further ahead of the receive time are not used.
_MAX_LEAD_S = 0.05


@dataclass(frozen=True, kw_only=True)
class StreamClocks:
    """Clocks of the streams of one bag."""

    bases: Mapping[str, TimeBase]
    """Time base by name of the stream: camera, arm, ``tf``."""
    simulated_ns: int
    """First time of /clock, which is the clock of the recording then [ns]; 0: receive times are."""
    shift_ns: int
    """Offset from receive times to the clock of the stamps [ns]."""
    notes: tuple[str, ...]
    """Sentences about automatic choices."""


def choose_clocks(bag: BagReader, routes: Mapping[str, TopicRoute], contract: RobotContract,
                  config: RosbagConversionConfig) -> StreamClocks:
    """Choose the clocks from the first seconds of a bag.

    Args:
        bag: open bag.
        routes: routes by topic.
        contract: the robot.
        config: ``receive`` names streams that use receive times in any case.

    Raises:
        ConvertError: the stamps of a stream are on another clock than the others.
    """
    lags, first_s, simulated_ns = _lags(bag, routes)
    bases = {name: TimeBase.RECEIVE if name in config.receive else TimeBase.HEADER for name in
             {route.name for route in routes.values() if route.is_stamped}}
    notes = []
    stamped: dict[str, float] = {}
    for name, seen in lags.items():
        if bases[name] is TimeBase.RECEIVE:
            continue
        if all(lag is None for lag in seen):
            bases[name] = TimeBase.RECEIVE
            notes.append(f'{name}: its stamps are zero, so its receive times are used')
        else:
            stamped[name] = median(lag for lag in seen if lag is not None)
    common = median(stamped.values()) if stamped else 0.0
    shift_s = 0.0
    agree = all(abs(lag - common) < _MAX_OFFSET_S for lag in stamped.values())
    if abs(common) > _MAX_OFFSET_S and len(stamped) > 1 and agree:
        shift_s = -common
        notes.append(f'all stamps are {_offset_text(common)} the time of the recording; frames are dated by the stamps')
    for name, lag in stamped.items():
        if note := _receive_reason(bag, name, lag + shift_s, first_s[name], _limit_s(contract, name)):
            bases[name] = TimeBase.RECEIVE
            notes.append(note)
    return StreamClocks(bases=bases, simulated_ns=simulated_ns, shift_ns=round(shift_s * 1e9), notes=tuple(notes))


def _lags(bag: BagReader, routes: Mapping[str, TopicRoute]
          ) -> tuple[dict[str, list[float | None]], dict[str, float], int]:
    """Measure the lag of stamps behind the receive times.

    Returns:
        Lags by stream [s], None for a zero stamp; time of the first message by stream [s]; simulated clock [ns] or 0.
    """
    wanted = {topic for topic, route in routes.items() if route.is_stamped or route.kind is StreamKind.CLOCK}
    lags: dict[str, list[float | None]] = {}
    first_s: dict[str, float] = {}
    clock_ns = simulated_ns = 0
    for topic, receive_ns, raw in bag.messages(wanted):
        if receive_ns - bag.start_ns > PEEK_NS:
            break
        route = routes[topic]
        if route.kind is StreamKind.CLOCK:
            clock_ns = decode_leading_stamp_ns(raw) or 0
            # If the recorder used the simulated clock, receive times are on it already.
            if not simulated_ns and abs(clock_ns - receive_ns) / 1e9 > _MAX_OFFSET_S:
                simulated_ns = clock_ns
                lags.clear()
            continue
        # Transforms are a sequence, whose length is before the first stamp.
        stamp_ns = decode_leading_stamp_ns(raw, skip=4 if route.kind is StreamKind.TRANSFORMS else 0)
        seen = lags.setdefault(route.name, [])
        now_ns = clock_ns if simulated_ns else receive_ns
        if len(seen) < _MAX_SAMPLES and now_ns:
            first_s.setdefault(route.name, (receive_ns - bag.start_ns) / 1e9)
            seen.append((now_ns - stamp_ns) / 1e9 if stamp_ns else None)
    return {name: seen for name, seen in lags.items() if seen}, first_s, simulated_ns


def _receive_reason(bag: BagReader, name: str, lag_s: float, first_s: float, limit_s: float) -> str:
    """Return why a stream uses its receive times; empty if its stamps are valid.

    Raises:
        ConvertError: the stamps are on another clock.
    """
    if abs(lag_s) > _MAX_OFFSET_S:
        raise ConvertError(
            f'{bag.path}: {name}: stamps are {_offset_text(lag_s)} the receive time, from the first message at '
            f'{first_s:.3f} s on: the clocks are not synchronised. Synchronise them (chrony, PTP) and record again, '
            f'or use receive times for this stream: --stamp-on-receipt {name}')
    if name != TF and (lag_s > limit_s or lag_s < -_MAX_LEAD_S):
        return (f'{name}: its stamps are {_offset_text(lag_s)} its receive times, so these are used; set '
                'stamp_on_receipt of the policy node too')
    return ''


def _limit_s(contract: RobotContract, name: str) -> float:
    if name == TF:
        return _MAX_OFFSET_S
    return contract.cameras[name].max_age_s if name in contract.cameras else contract.arms[name].max_age_s


def _offset_text(lag_s: float) -> str:
    return f'{abs(lag_s):.3f} s {"behind" if lag_s > 0 else "ahead of"}'
