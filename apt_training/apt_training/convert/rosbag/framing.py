"""The frames of one episode: taken at ticks or with a reference stream, and given their labels.

A frame waits until what was commanded one step later is known. Frames that lack a stream are
dropped and counted. Nothing is read or written here.
"""

import hashlib
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from apt_policy.core.contract import RobotContract
from apt_policy.core.sample import ArmState, Hold, Observation
from apt_training.convert.rosbag.labels import Labeller
from apt_training.convert.rosbag.playback import Playback
from apt_training.convert.rosbag.settings import BagSettings
from apt_training.convert.rosbag.tally import DropTally
from apt_training.convert.source import CONVERTER_VERSION, Refusal
from apt_training.episodes.episode import CameraFrame, EpisodeFacts, Frame, Subtask

_LATE_NS = 50_000_000
"""A command may arrive this much after it was due and still be the label."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is the same for all episodes of a bag."""

    contract: RobotContract
    settings: BagSettings
    labeller: Labeller
    playback: Playback
    start_ns: int
    """Of the recording, on its clock."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """In use, in the contract's order."""
        used = self.settings.cameras
        return tuple(name for name in self.contract.cameras if used is None or name in used)

    @property
    def rate_hz(self) -> float:
        """Of the frames."""
        name = self.settings.reference
        if name is None:
            return 1.0 / self.contract.step_s
        camera = self.contract.cameras.get(name)
        return camera.rate_hz if camera is not None else self.contract.arms[name].state_rate_hz

    def seconds(self, stamp_ns: int) -> float:
        """Into the recording."""
        return (stamp_ns - self.start_ns) / 1e9


class OpenEpisode:
    """An episode that is being read."""

    def __init__(self, index: int, recipe: Recipe, begin_ns: int, *, wanted: bool) -> None:
        """``wanted`` is false for an episode that is there already: it is passed over."""
        self.index, self.begin_ns, self.wanted = index, begin_ns, wanted
        self.closed = False
        self.refusal: tuple[Refusal, str] | None = None
        self.drops = DropTally()
        self.ticks: list[int] = []
        self.prompt = ''
        self._recipe = recipe
        self._next_ns = begin_ns
        self._texts: list[tuple[int, str]] = []
        self._count = 0
        self._waiting: deque[tuple[int, Frame]] = deque()
        self._ready: deque[Frame] = deque()
        self._last_ns = 0
        self._hash = hashlib.sha256()

    def made_of(self, topic: str, receive_ns: int, sketch: bytes) -> None:
        """A message became part of the episode."""
        self._hash.update(b'%s %d ' % (topic.encode(), receive_ns))
        self._hash.update(sketch)

    def advance(self, now_ns: int) -> None:
        """All messages before ``now_ns`` were taken: make the frames and labels that are due."""
        if self._recipe.settings.reference is None:
            while self._next_ns < now_ns:
                self._label(self._next_ns)
                self.frame_at(self._next_ns)
                self._next_ns += self._recipe.contract.step_ns
        self._label(now_ns)

    def frame_at(self, tick_ns: int) -> None:
        """Make a frame of what is known at an instant, or count why not."""
        if not self.wanted or tick_ns <= self._last_ns:
            return
        self._last_ns = tick_ns
        self.ticks.append(tick_ns)
        found = self._recipe.playback.snapshot(tick_ns, self.prompt)
        if isinstance(found, Hold):
            self.drops.add(found, self._recipe.seconds(tick_ns))
            return
        if not self._texts or self._texts[-1][1] != self.prompt:
            self._texts.append((self._count, self.prompt))
        self._count += 1
        self._waiting.append((tick_ns + self._recipe.contract.step_ns, self._frame(found)))

    def end(self, now_ns: int) -> None:
        """No frame belongs to the episode after ``now_ns``."""
        if self.closed:
            return
        self.advance(now_ns)
        while self._waiting:
            self._finish(min(self._waiting[0][0], now_ns))
        self.closed = True
        limit = self._recipe.settings.max_drops
        total = self.drops.total + self._count
        span = f'{self._recipe.seconds(self.begin_ns):.3f} s to {self._recipe.seconds(now_ns):.3f} s'
        if not self.wanted or self.refusal is not None:
            return
        if self.drops.total > limit * total:
            self.refuse(Refusal.DROPS, f'{span}: {self.drops.total} of {total} frames are lost (--max-drops '
                                       f'{limit:g}): {self.drops.explained()}')
        elif not self._count:
            self.refuse(Refusal.EMPTY, f'{span}: no frame fits in')

    def refuse(self, kind: Refusal, detail: str) -> None:
        """Leave the episode out."""
        self.closed = True
        self.refusal = kind, detail
        self._waiting.clear()

    def taken(self) -> list[Frame]:
        """The frames that are done since the last call."""
        frames = list(self._ready)
        self._ready.clear()
        return frames

    @property
    def facts(self) -> EpisodeFacts:
        """As far as they are known."""
        recipe = self._recipe
        prompts, subtasks = self._words()
        return EpisodeFacts(
            prompts=prompts, subtasks=subtasks, rate_hz=recipe.rate_hz, arms=tuple(recipe.contract.arms),
            cameras=recipe.cameras, label_source=recipe.labeller.source, contract=recipe.contract.policy_facts(),
            source_hash=self._hash.hexdigest(), converter_version=CONVERTER_VERSION)

    def _words(self) -> tuple[tuple[str, ...], tuple[Subtask, ...]]:
        """One instruction, or several in turn; what was said late counts from the beginning."""
        texts = [(start, text) for start, text in self._texts if text]
        if not texts:
            return ((self._recipe.settings.prompt,) if self._recipe.settings.prompt else ()), ()
        if len(texts) == 1:
            return (texts[0][1],), ()
        return (), tuple(Subtask(start=start if place else 0, description=text)
                         for place, (start, text) in enumerate(texts))

    def _label(self, now_ns: int) -> None:
        while self._waiting and self._waiting[0][0] + _LATE_NS < now_ns:
            self._finish(self._waiting[0][0])

    def _finish(self, due_ns: int) -> None:
        """Give the oldest frame its label: what was in force at ``due_ns``."""
        _, frame = self._waiting.popleft()

        def measured() -> tuple[ArmState, ...]:
            states = self._recipe.playback.arm_states(due_ns)
            if not isinstance(states, Hold):
                return states
            return tuple(ArmState(world_from_ee=pose, gripper=opening)
                         for pose, opening in zip(frame.world_from_ee, frame.gripper.tolist(), strict=True))

        poses, openings = self._recipe.labeller.at(due_ns, measured)
        self._ready.append(replace(frame, desired_world_from_ee=poses, desired_gripper=openings))

    def _frame(self, seen: Observation) -> Frame:
        arms = [arm for arm in seen.arms if arm is not None]
        views = {name: CameraFrame(rgb=view.rgb, mask=None if view.mask.all() else view.mask,
                                   intrinsics=view.intrinsics, world_from_camera=view.world_from_camera)
                 for name, view in zip(self._recipe.contract.cameras, seen.views, strict=True) if view is not None}
        return Frame(stamp_s=seen.stamp_ns / 1e9, world_from_ee=np.stack([arm.world_from_ee for arm in arms]),
                     gripper=np.array([arm.gripper for arm in arms]), desired_world_from_ee=None,
                     desired_gripper=None, views=views)
