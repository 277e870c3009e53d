"""Builder of the frames of one episode: sampled at ticks or with a reference stream, and labelled.

A frame waits until the command one step later is known. Frames that lack a stream are dropped and counted.
"""

import hashlib
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from apt_policy.core.contract import RobotContract
from apt_policy.core.sample import ArmState, Hold, Observation
from apt_training.convert.rosbag.bag_replay import BagReplay
from apt_training.convert.rosbag.config import RosbagConversionConfig
from apt_training.convert.rosbag.labels import Labeller
from apt_training.convert.rosbag.stream_stats import DropCounter
from apt_training.convert.source import CONVERTER_VERSION, SkipReason
from apt_training.episodes.episode import CameraFrame, EpisodeFacts, Frame, Subtask

_LABEL_DELAY_NS = 50_000_000
"""Delay within which a late command is still the label of its frame [ns]."""


@dataclass(frozen=True, kw_only=True)
class BuilderContext:
    """Values shared by all episodes of a bag."""

    contract: RobotContract
    config: RosbagConversionConfig
    labeller: Labeller
    replay: BagReplay
    start_ns: int
    """Beginning of the recording on its clock [ns]."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Cameras in use, in the order of the contract."""
        used = self.config.cameras
        return tuple(name for name in self.contract.cameras if used is None or name in used)

    @property
    def rate_hz(self) -> float:
        """Rate of the frames [Hz]."""
        name = self.config.reference
        if name is None:
            return 1.0 / self.contract.step_s
        camera = self.contract.cameras.get(name)
        return camera.rate_hz if camera is not None else self.contract.arms[name].state_rate_hz

    def time_s(self, stamp_ns: int) -> float:
        """Return the time since the beginning of the recording [s]."""
        return (stamp_ns - self.start_ns) / 1e9


class EpisodeBuilder:
    """Builder of one episode while the bag is read."""

    def __init__(self, index: int, context: BuilderContext, begin_ns: int, *, wanted: bool) -> None:
        """Begin an episode.

        Args:
            index: index within the bag.
            context: values shared by all episodes of the bag.
            begin_ns: time of its beginning [ns].
            wanted: False for an existing episode, whose frames are not built.
        """
        self.index, self.begin_ns, self.wanted = index, begin_ns, wanted
        self.closed = False
        """True if no further frame belongs to the episode."""
        self.skipped: tuple[SkipReason, str] | None = None
        """Reason and sentence if the episode is left out."""
        self.drops = DropCounter()
        self.ticks: list[int] = []
        """Times of all frames, dropped ones included [ns]."""
        self.prompt = ''
        self._context = context
        self._next_ns = begin_ns
        self._texts: list[tuple[int, str]] = []
        self._count = 0
        self._waiting: deque[tuple[int, Frame]] = deque()
        self._ready: deque[Frame] = deque()
        self._last_ns = 0
        self._hash = hashlib.sha256()

    def hash_message(self, topic: str, receive_ns: int, fingerprint: bytes) -> None:
        """Add a message to the source hash of the episode."""
        self._hash.update(b'%s %d ' % (topic.encode(), receive_ns))
        self._hash.update(fingerprint)

    def advance_to(self, now_ns: int) -> None:
        """Build the frames and labels that are due before ``now_ns``, when all messages before it were processed."""
        if self._context.config.reference is None:
            while self._next_ns < now_ns:
                self._label_due(self._next_ns)
                self.build_frame(self._next_ns)
                self._next_ns += self._context.contract.step_ns
        self._label_due(now_ns)

    def build_frame(self, tick_ns: int) -> None:
        """Build the frame at a time [ns], or count why it is dropped."""
        if not self.wanted or tick_ns <= self._last_ns:
            return
        self._last_ns = tick_ns
        self.ticks.append(tick_ns)
        observation = self._context.replay.snapshot(tick_ns, self.prompt)
        if isinstance(observation, Hold):
            self.drops.record(observation, self._context.time_s(tick_ns))
            return
        if not self._texts or self._texts[-1][1] != self.prompt:
            self._texts.append((self._count, self.prompt))
        self._count += 1
        self._waiting.append((tick_ns + self._context.contract.step_ns, self._frame(observation)))

    def finish(self, now_ns: int) -> None:
        """End the episode at ``now_ns`` [ns], and skip it if too many frames were dropped."""
        if self.closed:
            return
        self.advance_to(now_ns)
        while self._waiting:
            self._label_oldest(min(self._waiting[0][0], now_ns))
        self.closed = True
        limit = self._context.config.max_drops
        total = self.drops.total + self._count
        span = f'{self._context.time_s(self.begin_ns):.3f} s to {self._context.time_s(now_ns):.3f} s'
        if not self.wanted or self.skipped is not None:
            return
        if self.drops.total > limit * total:
            self.skip(SkipReason.DROPS, f'{span}: {self.drops.total} of {total} frames were dropped (--max-drops '
                                       f'{limit:g}): {self.drops.describe()}')
        elif not self._count:
            self.skip(SkipReason.EMPTY, f'{span}: it is shorter than a frame')

    def skip(self, kind: SkipReason, detail: str) -> None:
        """Leave the episode out.

        Args:
            kind: reason.
            detail: sentence with stream and time.
        """
        self.closed = True
        self.skipped = kind, detail
        self._waiting.clear()

    def pop_frames(self) -> list[Frame]:
        """Return the frames that were finished since the last call."""
        frames = list(self._ready)
        self._ready.clear()
        return frames

    @property
    def facts(self) -> EpisodeFacts:
        """Facts as far as they are known."""
        context = self._context
        prompts, subtasks = self._instructions()
        return EpisodeFacts(
            prompts=prompts, subtasks=subtasks, rate_hz=context.rate_hz, arms=tuple(context.contract.arms),
            cameras=context.cameras, label_source=context.labeller.source, contract=context.contract.policy_facts(),
            source_hash=self._hash.hexdigest(), converter_version=CONVERTER_VERSION)

    def _instructions(self) -> tuple[tuple[str, ...], tuple[Subtask, ...]]:
        """Return the prompts and subtasks; the first instruction counts from the first frame on."""
        texts = [(start, text) for start, text in self._texts if text]
        if not texts:
            return ((self._context.config.prompt,) if self._context.config.prompt else ()), ()
        if len(texts) == 1:
            return (texts[0][1],), ()
        return (), tuple(Subtask(start=start if place else 0, description=text)
                         for place, (start, text) in enumerate(texts))

    def _label_due(self, now_ns: int) -> None:
        while self._waiting and self._waiting[0][0] + _LABEL_DELAY_NS < now_ns:
            self._label_oldest(self._waiting[0][0])

    def _label_oldest(self, due_ns: int) -> None:
        """Label the oldest frame with the command in force at ``due_ns``."""
        _, frame = self._waiting.popleft()

        def measured() -> tuple[ArmState, ...]:
            states = self._context.replay.arm_states(due_ns)
            if not isinstance(states, Hold):
                return states
            return tuple(ArmState(world_from_ee=pose, gripper=opening)
                         for pose, opening in zip(frame.world_from_ee, frame.gripper.tolist(), strict=True))

        poses, openings = self._context.labeller.labels_at(due_ns, measured)
        self._ready.append(replace(frame, desired_world_from_ee=poses, desired_gripper=openings))

    def _frame(self, observation: Observation) -> Frame:
        arms = [arm for arm in observation.arms if arm is not None]
        views = {name: CameraFrame(rgb=view.rgb, mask=None if view.mask.all() else view.mask,
                                   intrinsics=view.intrinsics, world_from_camera=view.world_from_camera)
                 for name, view in zip(self._context.contract.cameras, observation.views, strict=True)
                 if view is not None}
        return Frame(stamp_s=observation.stamp_ns / 1e9, world_from_ee=np.stack([arm.world_from_ee for arm in arms]),
                     gripper=np.array([arm.gripper for arm in arms]), desired_world_from_ee=None,
                     desired_gripper=None, views=views)
