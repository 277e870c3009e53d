"""One bag as a unit of work: from its messages, in one pass, to episodes.

Brings together what reads, dates, plays back, splits and frames. What becomes of the frames is
not known here.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apt_policy.core.contract import RobotContract, contract_to_dict
from apt_policy.core.kinematics import forward_kinematics
from apt_policy.core.stream_spec import PROMPT_KINDS, StreamKind
from apt_training.convert.rosbag.clocks import choose_clocks
from apt_training.convert.rosbag.framing import OpenEpisode, Recipe
from apt_training.convert.rosbag.intervals import Change, Heard, Intervals, decided
from apt_training.convert.rosbag.labels import Labeller, label_source
from apt_training.convert.rosbag.playback import Playback, arms_by_joints, sketch
from apt_training.convert.rosbag.readers import ReaderChoice
from apt_training.convert.rosbag.reading import Bag, bag_files
from apt_training.convert.rosbag.settings import BagSettings, Split
from apt_training.convert.rosbag.tally import DropTally
from apt_training.convert.rosbag.wiring import Route, routes_of
from apt_training.convert.source import CONVERTER_VERSION, ConvertError, Refusal, RefusedError, UnitReport
from apt_training.episodes.episode import EpisodeFacts, Frame

_PROGRESS_EVERY = 200
"""Messages."""
_IDENTITY_BYTES = 1 << 16


@dataclass
class BagUnit:
    """A bag to convert. Crosses process borders until it is opened."""

    name: str
    path: str
    contract: RobotContract
    settings: BagSettings
    reader: ReaderChoice = ReaderChoice.AUTO
    """No part of the identity: every reader gives the same messages."""
    _session: '_Session | None' = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_session': None}

    def identity(self) -> str:
        """From the files' names, sizes, beginnings and ends, and everything that was chosen."""
        digest = hashlib.sha256(f'{CONVERTER_VERSION} {self.settings.text()} '
                                f'{sorted(contract_to_dict(self.contract).items())}'.encode())
        for file in bag_files(Path(self.path)):
            size = file.stat().st_size
            digest.update(f'{file.name} {size}'.encode())
            with file.open('rb') as content:
                digest.update(content.read(_IDENTITY_BYTES))
                content.seek(max(0, size - _IDENTITY_BYTES))
                digest.update(content.read(_IDENTITY_BYTES))
        return digest.hexdigest()

    def episodes(self, done: Callable[[int], bool], progress: Callable[[float, int], None]
                 ) -> Iterator['BagEpisode']:
        """See :class:`apt_training.convert.source.Unit`."""
        with Bag(Path(self.path), self.reader) as bag:
            self._session = _Session(bag, self.contract, self.settings, done, progress)
            yield from self._session.episodes()

    def report(self) -> UnitReport:
        """See :class:`apt_training.convert.source.Unit`."""
        return UnitReport() if self._session is None else self._session.report()


class BagEpisode:
    """One episode, taken while the bag is read on."""

    def __init__(self, session: '_Session', episode: OpenEpisode) -> None:
        self._session, self._episode = session, episode
        self.index = episode.index

    @property
    def facts(self) -> EpisodeFacts:
        """Instructions and hash are complete when all frames were taken."""
        return self._episode.facts

    def frames(self) -> Iterator[Frame]:
        """Every frame; raises RefusedError at the end if the episode is to be left out."""
        yield from self._session.frames_of(self._episode)
        if self._episode.refusal is not None:
            kind, detail = self._episode.refusal
            raise RefusedError(kind, f'{self._session.bag.path}: episode {self.index}: {detail}')


class _Session:
    """A bag while it is read."""

    def __init__(self, bag: Bag, contract: RobotContract, settings: BagSettings, done: Callable[[int], bool],
                 progress: Callable[[float, int], None]) -> None:
        self.bag = bag
        self._done, self._progress = done, progress
        self._routes = routes_of(contract, settings, bag.topics, bag=str(bag.path))
        self._clocks = choose_clocks(bag, self._routes, contract, settings)
        joint_arms = arms_by_joints(bag, self._routes, contract, settings)
        source = label_source(settings.labels, self._routes, contract, str(bag.path))
        chained = [name for name, arm in contract.arms.items() if arm.chain is not None]
        chains = forward_kinematics(contract, chained) if chained else {}
        labeller = Labeller(contract, source, self._routes, chains)
        self._playback = Playback(bag, self._routes, contract, clocks=self._clocks, labeller=labeller,
                                  joint_arms={name: chains[name] for name in joint_arms}, cameras=settings.cameras)
        self._recipe = Recipe(contract=contract, settings=settings, labeller=labeller, playback=self._playback,
                              start_ns=self._clocks.simulated_ns or bag.start_ns + self._clocks.shift_ns)
        kinds = {route.kind for route in self._routes.values()}
        self._split = decided(settings.split, marks=StreamKind.EPISODE_MARK in kinds,
                              prompts=not kinds.isdisjoint(PROMPT_KINDS))
        self._intervals = Intervals(self._split)
        self._notes = [*self._clocks.notes, *(f'{name} joint_states: TF does not place its end-effector, so its joints '
                                              'do' for name in joint_arms if settings.end_effector.value == 'auto')]
        self._reference = settings.reference
        self._messages = bag.messages(self._routes.keys())
        self._current: OpenEpisode | None = None
        self._last: OpenEpisode | None = None
        self._count, self._frames, self._seen = 0, 0, 0
        self._drops = DropTally()
        self._ticks: list[int] = []
        self._started = False

    def episodes(self) -> Iterator[BagEpisode]:
        """One after the other; what was not taken of one is passed over."""
        self._current = None
        while True:
            while self._current is None and self._step():
                pass
            episode = self._current
            if episode is None:
                return
            if episode.wanted:
                yield BagEpisode(self, episode)
            for _ in self.frames_of(episode):
                pass

    def frames_of(self, episode: OpenEpisode) -> Iterator[Frame]:
        """Read on until the episode ends."""
        while not episode.closed and self._step():
            frames = episode.taken()
            self._frames += len(frames)
            yield from frames
        if not episode.closed:
            self._end_of_bag(episode)
        frames = episode.taken()
        self._frames += len(frames)
        yield from frames

    def report(self) -> UnitReport:
        """Of everything that was read."""
        ticks = np.array(self._ticks, np.int64)
        lines = [tally.line(ticks, self._drops.of_stream(name)) for name, tally in self._playback.tallies.items()]
        named = {line.stream for line in lines}
        others = sorted({stream for stream, _ in self._drops.counts} - named)
        notes = [*self._notes, *self._playback.odd.notes(),
                 *(f'{stream}: {self._drops.of_stream(stream)} frames lost for its sake' for stream in others)]
        if not self._count:
            notes.append(f'no episode: nothing {"was marked" if self._split is Split.MARKS else "was said"}; '
                         '--split-by bag makes one of the whole bag')
        return UnitReport(streams=tuple(lines), notes=tuple(notes), damage=self.bag.damage,
                          details=dict(self._drops.by_reason()), read_by=', '.join(self.bag.read_by))

    def _step(self) -> bool:
        """Take one message; false at the end of the bag."""
        found = next(self._messages, None)
        if found is None:
            return False
        topic, receive_ns, raw = found
        route = self._routes[topic]
        self._tell_progress(receive_ns)
        jumped = self._playback.date(route, receive_ns, raw)
        if not self._started:
            self._started = True
            self._act(self._intervals.start())
        elif jumped:
            self._jump()
        if self._current is not None:
            self._current.advance(self._playback.now_ns)
            self._current.made_of(topic, receive_ns, sketch(raw))
        if route.kind in PROMPT_KINDS:
            self._hear(self._intervals.hear_prompt, route, receive_ns, raw)
        elif route.kind is StreamKind.EPISODE_MARK:
            self._hear(self._intervals.hear_mark, route, receive_ns, raw)
        else:
            instant_ns = self._playback.take(route, receive_ns, raw)
            if self._current is not None and self._is_reference(route):
                self._current.frame_at(instant_ns)
        return True

    def _is_reference(self, route: Route) -> bool:
        return route.name == self._reference and route.kind in (StreamKind.IMAGE, StreamKind.JOINT_STATE)

    def _hear(self, hear: Callable[[str], Heard], route: Route, receive_ns: int, raw: bytes | memoryview) -> None:
        try:
            heard = hear(self.bag.message(route.topic, raw).data)
        except ConvertError as error:
            heard = Heard(complaint=str(error))
        if heard.complaint:
            self._playback.odd.add(route.stream, 'messages ignored', receive_ns, heard.complaint)
        self._act(heard)
        if self._current is not None:
            self._current.prompt = self._intervals.prompt

    def _act(self, heard: Heard) -> None:
        now_ns = self._playback.now_ns
        for change in heard.changes:
            if self._current is not None:
                self._close(change, now_ns)
            if change in (Change.BEGIN, Change.ABANDON):
                if self._split is Split.MARKS:
                    self._recipe.labeller.begin(now_ns)
                self._current = OpenEpisode(self._count, self._recipe, now_ns, wanted=not self._done(self._count))
                self._current.prompt = self._intervals.prompt
                self._count += 1

    def _close(self, change: Change, now_ns: int) -> None:
        episode = self._current
        assert episode is not None
        at_s = self._recipe.seconds(now_ns)
        if change is Change.DISCARD:
            episode.refuse(Refusal.DISCARDED, f'discarded at {at_s:.3f} s')
        elif change is Change.ABANDON:
            episode.refuse(Refusal.UNFINISHED, f'another one begins at {at_s:.3f} s before its end is marked')
        self._finish(episode, now_ns)

    def _finish(self, episode: OpenEpisode, now_ns: int) -> None:
        episode.end(now_ns)
        self._drops.merge(episode.drops)
        self._ticks += episode.ticks
        self._current = None

    def _jump(self) -> None:
        episode = self._current
        if episode is not None:
            episode.refuse(Refusal.CLOCK_JUMP, 'the clock of the recording jumped to '
                                               f'{self._recipe.seconds(self._playback.now_ns):.3f} s')
            self._finish(episode, self._playback.now_ns)
        self._act(self._intervals.clock_jumped())

    def _end_of_bag(self, episode: OpenEpisode) -> None:
        if self._split is Split.MARKS:
            why = self.bag.damage or 'the recording ends before its end is marked'
            episode.refuse(Refusal.UNFINISHED, f'it began at {self._recipe.seconds(episode.begin_ns):.3f} s; {why}')
        elif self.bag.damage:
            self._notes.append(f'episode {episode.index} ends where the bag breaks off')
        # What arrived at the last instant counts.
        self._finish(episode, self._playback.now_ns + 1)

    def _tell_progress(self, receive_ns: int) -> None:
        self._seen += 1
        if self._seen % _PROGRESS_EVERY == 0:
            span = max(self.bag.end_ns - self.bag.start_ns, 1)
            self._progress(min(max((receive_ns - self.bag.start_ns) / span, 0.0), 1.0), self._frames)
