"""Conversion job of one bag, which reads its messages in one pass and yields episodes."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apt_policy.core.contract import RobotContract, contract_to_dict
from apt_policy.core.kinematics import forward_kinematics
from apt_policy.core.stream_spec import PROMPT_KINDS, StreamKind
from apt_training.convert.rosbag.bag_reader import BagReader, bag_files
from apt_training.convert.rosbag.bag_replay import BagReplay, arms_placed_by_joints, fingerprint
from apt_training.convert.rosbag.clocks import choose_clocks
from apt_training.convert.rosbag.config import RosbagConversionConfig, SegmentationMode
from apt_training.convert.rosbag.frame_builder import BuilderContext, EpisodeBuilder
from apt_training.convert.rosbag.labels import Labeller, choose_label_source
from apt_training.convert.rosbag.reader_backends import ReaderChoice
from apt_training.convert.rosbag.segmentation import EpisodeSegmenter, SegmentChange, SegmentEvent, resolve_mode
from apt_training.convert.rosbag.stream_stats import DropCounter
from apt_training.convert.rosbag.topic_routes import TopicRoute, find_routes
from apt_training.convert.source import CONVERTER_VERSION, ConversionReport, ConvertError, SkipEpisodeError, SkipReason
from apt_training.episodes.episode import EpisodeFacts, Frame

_PROGRESS_EVERY = 200
"""Number of messages between two progress reports."""
_IDENTITY_BYTES = 1 << 16
"""Size of the beginning and the end of each file that the identity includes [B]."""


@dataclass
class RosbagJob:
    """Bag to convert; picklable."""

    name: str
    path: str
    contract: RobotContract
    config: RosbagConversionConfig
    reader: ReaderChoice = ReaderChoice.AUTO
    """Library to read with. It is not part of the identity: all give the same messages."""
    _converter: '_BagConverter | None' = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_converter': None}

    def identity(self) -> str:
        """Return a hash of names, sizes, beginnings and ends of the files, of the contract and the configuration."""
        digest = hashlib.sha256(f'{CONVERTER_VERSION} {self.config.to_json()} '
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
                 ) -> Iterator['RosbagEpisode']:
        """Yield the episodes; see :meth:`apt_training.convert.source.ConversionJob.episodes`."""
        with BagReader(Path(self.path), self.reader) as bag:
            self._converter = _BagConverter(bag, self.contract, self.config, done, progress)
            yield from self._converter.episodes()

    def report(self) -> ConversionReport:
        """Return the report; see :meth:`apt_training.convert.source.ConversionJob.report`."""
        return ConversionReport() if self._converter is None else self._converter.report()


class RosbagEpisode:
    """Episode that is read while the bag is read."""

    def __init__(self, converter: '_BagConverter', episode: EpisodeBuilder) -> None:
        self._converter, self._episode = converter, episode
        self.index = episode.index

    @property
    def facts(self) -> EpisodeFacts:
        """Facts; instructions and hash are complete after the last frame."""
        return self._episode.facts

    def frames(self) -> Iterator[Frame]:
        """Yield the frames.

        Raises:
            SkipEpisodeError: after the last frame, if the episode must be left out.
        """
        yield from self._converter.frames_of(self._episode)
        if self._episode.skipped is not None:
            kind, detail = self._episode.skipped
            raise SkipEpisodeError(kind, f'{self._converter.bag.path}: episode {self.index}: {detail}')


class _BagConverter:
    """Converter of one open bag."""

    def __init__(self, bag: BagReader, contract: RobotContract, config: RosbagConversionConfig,
                 done: Callable[[int], bool], progress: Callable[[float, int], None]) -> None:
        self.bag = bag
        self._done, self._progress = done, progress
        self._routes = find_routes(contract, config, bag.topics, bag=str(bag.path))
        self._clocks = choose_clocks(bag, self._routes, contract, config)
        joint_arms = arms_placed_by_joints(bag, self._routes, contract, config)
        source = choose_label_source(config.labels, self._routes, contract, str(bag.path))
        chained = [name for name, arm in contract.arms.items() if arm.chain is not None]
        chains = forward_kinematics(contract, chained) if chained else {}
        labeller = Labeller(contract, source, self._routes, chains)
        self._replay = BagReplay(bag, self._routes, contract, clocks=self._clocks, labeller=labeller,
                                 joint_arms={name: chains[name] for name in joint_arms}, cameras=config.cameras)
        self._context = BuilderContext(contract=contract, config=config, labeller=labeller, replay=self._replay,
                                       start_ns=self._clocks.simulated_ns or bag.start_ns + self._clocks.shift_ns)
        kinds = {route.kind for route in self._routes.values()}
        self._mode = resolve_mode(config.split, marks=StreamKind.EPISODE_MARK in kinds,
                                  prompts=not kinds.isdisjoint(PROMPT_KINDS))
        self._segmenter = EpisodeSegmenter(self._mode)
        self._notes = [*self._clocks.notes, *(f'{name} joint_states: TF lacks its end-effector, so its pose comes from '
                                              'joints' for name in joint_arms if config.end_effector.value == 'auto')]
        self._reference = config.reference
        self._messages = bag.messages(self._routes.keys())
        self._current: EpisodeBuilder | None = None
        self._last: EpisodeBuilder | None = None
        self._count, self._frames, self._seen = 0, 0, 0
        self._drops = DropCounter()
        self._ticks: list[int] = []
        self._started = False

    def episodes(self) -> Iterator[RosbagEpisode]:
        """Yield the episodes; unread frames of one are skipped."""
        self._current = None
        while True:
            while self._current is None and self._process_next():
                pass
            episode = self._current
            if episode is None:
                return
            if episode.wanted:
                yield RosbagEpisode(self, episode)
            for _ in self.frames_of(episode):
                pass

    def frames_of(self, episode: EpisodeBuilder) -> Iterator[Frame]:
        """Yield the frames of an episode, and read the bag until it ends."""
        while not episode.closed and self._process_next():
            frames = episode.pop_frames()
            self._frames += len(frames)
            yield from frames
        if not episode.closed:
            self._end_of_bag(episode)
        frames = episode.pop_frames()
        self._frames += len(frames)
        yield from frames

    def report(self) -> ConversionReport:
        """Return the report on all that was read."""
        ticks = np.array(self._ticks, np.int64)
        lines = [stats.summarize(ticks, self._drops.count_of_stream(name))
                 for name, stats in self._replay.stats.items()]
        named = {line.stream for line in lines}
        others = sorted({stream for stream, _ in self._drops.counts} - named)
        notes = [*self._notes, *self._replay.issues.describe(),
                 *(f'{stream}: {self._drops.count_of_stream(stream)} frames dropped because of it'
                   for stream in others)]
        if not self._count:
            missing = 'marks' if self._mode is SegmentationMode.MARKS else 'prompts'
            notes.append(f'no episode: the bag has no {missing}; use --split-by bag for one episode of the whole bag')
        return ConversionReport(streams=tuple(lines), notes=tuple(notes), damage=self.bag.damage,
                          details=dict(self._drops.by_reason()), read_by=', '.join(self.bag.read_by))

    def _process_next(self) -> bool:
        """Process one message; return False at the end of the bag."""
        found = next(self._messages, None)
        if found is None:
            return False
        topic, receive_ns, raw = found
        route = self._routes[topic]
        self._report_progress(receive_ns)
        jumped = self._replay.advance_clock(route, receive_ns, raw)
        if not self._started:
            self._started = True
            self._apply(self._segmenter.on_start())
        elif jumped:
            self._on_clock_jump()
        if self._current is not None:
            self._current.advance_to(self._replay.now_ns)
            self._current.hash_message(topic, receive_ns, fingerprint(raw))
        if route.kind in PROMPT_KINDS:
            self._process_text(self._segmenter.on_prompt, route, receive_ns, raw)
        elif route.kind is StreamKind.EPISODE_MARK:
            self._process_text(self._segmenter.on_mark, route, receive_ns, raw)
        else:
            instant_ns = self._replay.process_message(route, receive_ns, raw)
            if self._current is not None and self._is_reference(route):
                self._current.build_frame(instant_ns)
        return True

    def _is_reference(self, route: TopicRoute) -> bool:
        return route.name == self._reference and route.kind in (StreamKind.IMAGE, StreamKind.JOINT_STATE)

    def _process_text(self, handle: Callable[[str], SegmentEvent], route: TopicRoute, receive_ns: int,
                      raw: bytes | memoryview) -> None:
        try:
            event = handle(self.bag.decode(route.topic, raw).data)
        except ConvertError as error:
            event = SegmentEvent(problem=str(error))
        if event.problem:
            self._replay.issues.record(route.stream, 'messages ignored', receive_ns, event.problem)
        self._apply(event)
        if self._current is not None:
            self._current.prompt = self._segmenter.prompt

    def _apply(self, event: SegmentEvent) -> None:
        now_ns = self._replay.now_ns
        for change in event.changes:
            if self._current is not None:
                self._close(change, now_ns)
            if change in (SegmentChange.BEGIN, SegmentChange.ABANDON):
                if self._mode is SegmentationMode.MARKS:
                    self._context.labeller.start_episode(now_ns)
                self._current = EpisodeBuilder(self._count, self._context, now_ns, wanted=not self._done(self._count))
                self._current.prompt = self._segmenter.prompt
                self._count += 1

    def _close(self, change: SegmentChange, now_ns: int) -> None:
        episode = self._current
        assert episode is not None
        at_s = self._context.time_s(now_ns)
        if change is SegmentChange.DISCARD:
            episode.skip(SkipReason.DISCARDED, f'discarded at {at_s:.3f} s')
        elif change is SegmentChange.ABANDON:
            episode.skip(SkipReason.UNFINISHED, f'the next episode begins at {at_s:.3f} s, but its end was not marked')
        self._finish(episode, now_ns)

    def _finish(self, episode: EpisodeBuilder, now_ns: int) -> None:
        episode.finish(now_ns)
        self._drops.merge(episode.drops)
        self._ticks += episode.ticks
        self._current = None

    def _on_clock_jump(self) -> None:
        episode = self._current
        if episode is not None:
            episode.skip(SkipReason.CLOCK_JUMP, 'the clock of the recording jumped to '
                                               f'{self._context.time_s(self._replay.now_ns):.3f} s')
            self._finish(episode, self._replay.now_ns)
        self._apply(self._segmenter.on_clock_jump())

    def _end_of_bag(self, episode: EpisodeBuilder) -> None:
        if self._mode is SegmentationMode.MARKS:
            reason = self.bag.damage or 'the recording ends before its end is marked'
            episode.skip(SkipReason.UNFINISHED, f'it began at {self._context.time_s(episode.begin_ns):.3f} s; {reason}')
        elif self.bag.damage:
            self._notes.append(f'episode {episode.index} ends where the bag is damaged')
        # Messages at the last time count.
        self._finish(episode, self._replay.now_ns + 1)

    def _report_progress(self, receive_ns: int) -> None:
        self._seen += 1
        if self._seen % _PROGRESS_EVERY == 0:
            span = max(self.bag.end_ns - self.bag.start_ns, 1)
            self._progress(min(max((receive_ns - self.bag.start_ns) / span, 0.0), 1.0), self._frames)
