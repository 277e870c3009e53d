"""Which clock each stream of a bag is read by, decided from the bag's first seconds.

A message has the stamp that its maker gave it and the time at which the recorder received it.
Frames are taken on the clock of the stamps; a stream whose stamps cannot be used counts from
its arrival. Stamps are read from the bytes: nothing is decoded.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from apt_policy.core.contract import RobotContract
from apt_policy.core.stream_spec import StreamKind
from apt_policy.core.streams import TimeBase
from apt_training.convert.rosbag.reading import Bag
from apt_training.convert.rosbag.settings import BagSettings
from apt_training.convert.rosbag.wiring import TF, Route
from apt_training.convert.source import ConvertError

PEEK_NS = 3_000_000_000
"""How much of a bag is looked at."""
_SAMPLES = 100
_APART_S = 1.0
"""Clocks farther apart than this are different clocks."""
_LEAD_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """How the messages of one bag are dated."""

    bases: Mapping[str, TimeBase]
    """By stream name: camera, arm, ``tf``."""
    simulated_ns: int
    """Other than 0: the time of the recording is what /clock said last, this at first, not when messages were
    received."""
    shift_ns: int
    """To be added to receive times to have them on the clock of the stamps."""
    notes: tuple[str, ...]
    """What was chosen without being asked for."""


def leading_stamp_ns(raw: bytes | memoryview, *, behind: int = 0) -> int:
    """The stamp with which a message begins, or that stands ``behind`` bytes later, from its CDR bytes; 0 if there is
    none."""
    if len(raw) < 12 + behind:
        return 0
    seconds, nanoseconds = struct.unpack_from('<iI' if raw[1] & 1 else '>iI', raw, 4 + behind)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def choose_clocks(bag: Bag, routes: Mapping[str, Route], contract: RobotContract, settings: BagSettings) -> Clocks:
    """Look at the bag's first seconds and decide.

    Raises:
        ConvertError: the stamps of a stream are of another clock than the rest.
    """
    lags, first_s, simulated_ns = _lags(bag, routes)
    bases = {name: TimeBase.RECEIVE if name in settings.receive else TimeBase.HEADER for name in
             {route.name for route in routes.values() if route.is_stamped}}
    notes = []
    stamped: dict[str, float] = {}
    for name, seen in lags.items():
        if bases[name] is TimeBase.RECEIVE:
            continue
        if all(lag is None for lag in seen):
            bases[name] = TimeBase.RECEIVE
            notes.append(f'{name}: its stamps are zero, so it counts from when it was received')
        else:
            stamped[name] = median(lag for lag in seen if lag is not None)
    common = median(stamped.values()) if stamped else 0.0
    shift_s = 0.0
    if abs(common) > _APART_S and len(stamped) > 1 and all(abs(lag - common) < _APART_S for lag in stamped.values()):
        shift_s = -common
        notes.append(f'all stamps are {_apart(common)} the time of the recording; frames are dated by the stamps')
    for name, lag in stamped.items():
        if note := _judged(bag, name, lag + shift_s, first_s[name], _limit_s(contract, name)):
            bases[name] = TimeBase.RECEIVE
            notes.append(note)
    return Clocks(bases=bases, simulated_ns=simulated_ns, shift_ns=round(shift_s * 1e9), notes=tuple(notes))


def _lags(bag: Bag, routes: Mapping[str, Route]
          ) -> tuple[dict[str, list[float | None]], dict[str, float], int]:
    """By stream how far stamps are behind [s], None where one is zero, and when it began [s]; the simulated clock."""
    wanted = {topic for topic, route in routes.items() if route.is_stamped or route.kind is StreamKind.CLOCK}
    lags: dict[str, list[float | None]] = {}
    first_s: dict[str, float] = {}
    clock_ns = simulated_ns = 0
    for topic, receive_ns, raw in bag.messages(wanted):
        if receive_ns - bag.start_ns > PEEK_NS:
            break
        route = routes[topic]
        if route.kind is StreamKind.CLOCK:
            clock_ns = leading_stamp_ns(raw)
            # A recorder on the simulated clock has dated everything by it already.
            if not simulated_ns and abs(clock_ns - receive_ns) / 1e9 > _APART_S:
                simulated_ns = clock_ns
                lags.clear()
            continue
        # Transforms come in a list: its length stands before the first one's stamp.
        stamp_ns = leading_stamp_ns(raw, behind=4 if route.kind is StreamKind.TRANSFORMS else 0)
        seen = lags.setdefault(route.name, [])
        now_ns = clock_ns if simulated_ns else receive_ns
        if len(seen) < _SAMPLES and now_ns:
            first_s.setdefault(route.name, (receive_ns - bag.start_ns) / 1e9)
            seen.append((now_ns - stamp_ns) / 1e9 if stamp_ns else None)
    return {name: seen for name, seen in lags.items() if seen}, first_s, simulated_ns


def _judged(bag: Bag, name: str, lag_s: float, first_s: float, limit_s: float) -> str:
    """Why a stream is to count from its arrival; empty if its stamps are fine."""
    if abs(lag_s) > _APART_S:
        raise ConvertError(
            f'{bag.path}: {name}: its stamps are {_apart(lag_s)} the time at which it was received, from its first '
            f'message at {first_s:.3f} s on: the clocks are not synchronised. Synchronise them (chrony, PTP) and '
            f'record again, or let this stream count from its arrival: --stamp-on-receipt {name}')
    if name != TF and (lag_s > limit_s or lag_s < -_LEAD_S):
        return (f'{name}: its stamps are {_apart(lag_s)} its arrival, so it counts from when it was received; let the '
                'node that runs the policy do the same')
    return ''


def _limit_s(contract: RobotContract, name: str) -> float:
    if name == TF:
        return _APART_S
    return contract.cameras[name].max_age_s if name in contract.cameras else contract.arms[name].max_age_s


def _apart(lag_s: float) -> str:
    return f'{abs(lag_s):.3f} s {"behind" if lag_s > 0 else "ahead of"}'
