"""Training samples from the episodes of one dataset.

A sample is one frame with its past and future. A sample drawn for training takes all its randomness from one numpy
generator; a sample addressed by episode and frame has none. The mixture decides which episode is drawn when.

Letters: A arms.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from apt_training.data.augment import NO_AUGMENTATION, Augmentation
from apt_training.data.dataset_spec import DatasetSpec, VideoRoot
from apt_training.data.sample import Sample, Window
from apt_training.data.sample_images import sample_images
from apt_training.data.states import future_states, past_states
from apt_training.episodes.episode import EpisodeError, EpisodeFacts
from apt_training.episodes.read import Episode

OPEN_FILES = 32
"""Number of files kept open per dataset and process; an open HDF5 file takes 2 MB."""
CACHED_BYTES = 1 << 27
"""Memory for the arrays of episodes whose files are closed [bytes]; the least recently used are dropped first."""


class DatasetMismatchError(EpisodeError):
    """Readable episode without the arms or cameras that its dataset requires."""

    def __init__(self, message: str, facts: EpisodeFacts) -> None:
        super().__init__(message)
        self.facts = facts
        """Facts of the episode."""


class _SampleDraw(NamedTuple):
    """Random choices of one sample."""

    frame: int
    wording: int
    cameras: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    """Reference cameras of each arm; the first one that shows anything is used."""


class EpisodeFileCache:
    """Least-recently-used cache of open episodes, for one dataset and process.

    Opening a file and reading its small arrays costs several times as much as decoding a sample's images. An episode
    that leaves the cache of open files keeps its arrays for a while.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[int, Episode] = OrderedDict()
        self._closed: OrderedDict[int, Episode] = OrderedDict()
        self._bytes = 0

    def get(self, index: int, open_episode: Callable[[], Episode]) -> Episode:
        """Return an episode by its number, opened with ``open_episode`` if it is not cached."""
        if index not in self._open:
            episode = self._closed.pop(index, None)
            # An empty episode is falsy, and asking for its length would read the file.
            if episode is None:
                episode = open_episode()
            else:
                self._bytes -= episode.nbytes
            self._open[index] = episode
            if len(self._open) > OPEN_FILES:
                self._close_file(*self._open.popitem(last=False))
        self._open.move_to_end(index)
        return self._open[index]

    def clear(self) -> None:
        """Close every file and drop all arrays."""
        for episodes in (self._open, self._closed):
            while episodes:
                episodes.popitem()[1].close()
        self._bytes = 0

    def _close_file(self, index: int, episode: Episode) -> None:
        episode.close_file()
        self._closed[index] = episode
        self._bytes += episode.nbytes
        while self._bytes > CACHED_BYTES:
            oldest = self._closed.popitem(last=False)[1]
            self._bytes -= oldest.nbytes
            oldest.close()


class EpisodeDataset(Dataset[Sample]):
    """Episodes of one dataset; picklable, and usable on both sides of a fork."""

    def __init__(self, files: Sequence[Path], spec: DatasetSpec, *, window: Window | None = None,
                 augmentation: Augmentation = NO_AUGMENTATION, shuffle_cameras: bool = False,
                 root: Path | None = None, videos: Path | None = None) -> None:
        """Describe the dataset; no file is opened.

        Args:
            files: episode files.
            spec: description of the dataset.
            window: size of the samples; None: 256 px and 32 future states.
            augmentation: image augmentation of :meth:`draw_sample`.
            shuffle_cameras: shuffle cameras in :meth:`draw_sample`, if the spec allows it.
            root: folder that the names of files and samples are relative to; None: bare file names.
            videos: folder that the names of videos are relative to; None: the folder of each file.

        Raises:
            ValueError: there are no files.
        """
        if not files:
            raise ValueError(f'dataset {spec.name} has no episodes')
        self.spec = spec
        self.window = window or Window()
        self.files = [Path(file) for file in files]
        self._augmentation = augmentation
        self._shuffle = shuffle_cameras and spec.shuffle_cameras
        self._root, self._videos = root, videos
        self._cache = EpisodeFileCache()
        self._pid = os.getpid()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, '_cache': EpisodeFileCache()}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: tuple[int, int]) -> Sample:
        return self.sample_at(*index)

    def episode(self, index: int) -> Episode:
        """Return an opened episode, which stays cached for a while."""
        if self._pid != os.getpid():
            self._cache, self._pid = EpisodeFileCache(), os.getpid()
        return self._cache.get(index, lambda: self._open_episode(self.files[index]))

    def close(self) -> None:
        """Close every file; files are opened again on demand."""
        self._cache.clear()

    def sample_at(self, episode: int, frame: int) -> Sample:
        """Return the sample of one frame, without randomness.

        The sample has the first wording of the instruction, cameras in order, the first reference camera of each arm
        and no augmentation.

        Raises:
            EpisodeError: the file cannot be read or does not fit the spec.
        """
        opened = self.episode(episode)
        cameras = self._cameras(opened)
        references = self._reference_candidates(opened, cameras)
        return self._build(opened, _SampleDraw(frame, 0, cameras, tuple(references)), None)

    def draw_sample(self, episode: int, rng: np.random.Generator) -> Sample:
        """Draw a random frame of an episode for training.

        Raises:
            EpisodeError: the file cannot be read or does not fit the spec.
        """
        opened = self.episode(episode)
        cameras = self._cameras(opened)
        frame, wording = int(rng.integers(len(opened))), int(rng.integers(max(1, len(opened.facts.prompts))))
        references = [_shuffled(candidates, rng) for candidates in self._reference_candidates(opened, cameras)]
        cameras = _shuffled(cameras, rng) if self._shuffle else cameras
        return self._build(opened, _SampleDraw(frame, wording, cameras, tuple(references)), rng)

    def check_episode(self, index: int) -> None:
        """Read everything of an episode except its images, and compare it with the spec.

        Raises:
            EpisodeError: the file is damaged or does not fit the spec.
        """
        with self._open_episode(self.files[index]) as episode:
            episode.check()
            self._reference_candidates(episode, self._cameras(episode))
            _chosen_arms(episode.facts, self.spec, episode.path)

    def _open_episode(self, file: Path) -> Episode:
        videos = self._videos
        if videos is not None and self._root is not None and self.spec.videos is VideoRoot.MIRROR:
            videos /= file.parent.relative_to(self._root)
        return Episode(file, video_root=videos)

    def _name_of(self, file: Path) -> str:
        return str(file.name if self._root is None else file.relative_to(self._root))

    def _cameras(self, episode: Episode) -> tuple[str, ...]:
        available = episode.facts.cameras
        wanted = self.spec.cameras or available
        missing = [name for name in wanted if name not in available]
        if missing:
            raise DatasetMismatchError(
                f'{episode.path} has no camera {missing[0]!r}, which dataset {self.spec.name} needs; it has '
                f'{", ".join(available)}', episode.facts)
        return wanted

    def _reference_candidates(self, episode: Episode, cameras: tuple[str, ...]) -> list[tuple[str, ...]]:
        """Return, for each chosen arm, the cameras in whose frame its actions may be expressed."""
        chosen = _chosen_arms(episode.facts, self.spec, episode.path)
        rows, order = self.spec.reference_cameras, self.spec.ee_indices
        if not rows:
            return [cameras] * len(chosen)
        named = dict(zip(order or range(len(rows)), rows, strict=True))
        if not set(chosen) <= set(named):
            raise DatasetMismatchError(
                f'{episode.path} is to be trained with arms {list(chosen)}; dataset {self.spec.name} names reference '
                f'cameras of arms {list(named)}', episode.facts)
        return [named[arm] for arm in chosen]

    def _build(self, episode: Episode, draw: _SampleDraw, rng: np.random.Generator | None) -> Sample:
        spec, window, facts, frame = self.spec, self.window, episode.facts, draw.frame
        views = [episode.view(name, frame) for name in draw.cameras]
        rgb, mask, intrinsics = sample_images(views, draw.cameras, side=window.image_size,
                                              wrist_cameras=spec.wrist_cameras, augmentation=self._augmentation,
                                              rng=rng)
        arms = list(_chosen_arms(facts, spec, episode.path))
        times = episode.timestamps
        if spec.rate_hz is not None:
            times = np.arange(len(times)) / spec.rate_hz
        step_s = spec.step_s or spec.step_frames / (spec.rate_hz or facts.rate_hz)
        measured, desired = _shift_ee(episode.world_from_ee, episode.desired_world_from_ee, spec.ee_forward_m)
        past = past_states(times, measured, episode.gripper, frame=frame, step=step_s, count=window.history)
        future = future_states(times, (measured, desired), (episode.gripper, episode.desired_gripper), frame=frame,
                               step=step_s, count=window.horizon)
        visible = {name: view.world_from_camera
                   for name, view, covered in zip(draw.cameras, views, mask, strict=True) if covered.any()}
        prompt = facts.prompt(draw.wording, frame)
        return Sample(
            rgb=rgb, mask=mask, intrinsics=intrinsics,
            world_from_camera=np.stack([view.world_from_camera for view in views]),
            world_from_ee=measured[frame, arms],
            world_from_reference=np.stack([_first_visible(names, visible, f'{episode.path}, frame {frame}')
                                           for names in draw.references]),
            history=past[:, arms], future=future[:, arms], valid_arms=_valid_arms(facts, spec),
            prompt=spec.rewrite_prompt(prompt) if spec.rewrite_prompt else prompt, timestamp=float(times[frame]),
            cameras=draw.cameras, source=f'{spec.name}/{self._name_of(episode.path)}:{frame}')


def _shuffled(names: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(names[i] for i in rng.permutation(len(names)))


def _first_visible(names: Sequence[str], visible: Mapping[str, NDArray[np.float64]], where: str) -> NDArray[np.float64]:
    found = next((visible[name] for name in names if name in visible), None)
    if found is None:
        raise EpisodeError(f'{where}: none of the reference cameras {", ".join(names)} shows anything; '
                           'actions are expressed in the frame of one')
    return found


def _chosen_arms(facts: EpisodeFacts, spec: DatasetSpec, path: Path) -> tuple[int, ...]:
    """Return the positions in the file of a sample's arms, in the model's order."""
    if spec.arms and facts.arms != spec.arms:
        raise DatasetMismatchError(f'{path} has arms {", ".join(facts.arms)}; dataset {spec.name} needs '
                                   f'{", ".join(spec.arms)}', facts)
    if spec.ee_indices is None:
        return tuple(range(len(facts.arms)))
    chosen = facts.ee_indices or spec.ee_indices
    if max(chosen) >= len(facts.arms) or len(chosen) > len(spec.ee_indices):
        raise DatasetMismatchError(f'{path} has {len(facts.arms)} arms; dataset {spec.name} wants '
                                   f'{list(chosen)} of them, at most {len(spec.ee_indices)}', facts)
    return chosen


def _valid_arms(facts: EpisodeFacts, spec: DatasetSpec) -> NDArray[np.bool_]:
    """Return (A,) validity of the chosen arms."""
    if spec.ee_indices is not None:
        return np.ones(len(facts.ee_indices or spec.ee_indices), np.bool_)
    named = range(len(facts.arms)) if facts.ee_indices is None else facts.ee_indices
    return np.isin(np.arange(len(facts.arms)), list(named))


def _shift_ee(measured: NDArray[np.float64], desired: NDArray[np.float64] | None, forward_m: float
              ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Return the poses with their origins moved by ``forward_m`` along their z axes [m]."""
    if not forward_m:
        return measured, desired
    along = np.eye(4)
    along[2, 3] = forward_m
    return measured @ along, None if desired is None else desired @ along
