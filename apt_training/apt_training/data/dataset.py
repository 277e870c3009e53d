"""Episodes of one dataset as training samples.

A sample is one frame with its past and future. Drawn for training, everything random about
it comes from one numpy generator; addressed as (episode, frame), nothing is random. Which
episode is drawn when is the mixture's.

Letters: C cameras, A arms, S image side, H history states, T horizon.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from apt_training.data.augment import NO_AUGMENTATION, Augmentation, change_colour, draw_colour, draw_crop
from apt_training.data.declare import Declaration, Videos
from apt_training.data.sample import Sample, Window
from apt_training.data.shelf import Shelf
from apt_training.data.states import future_states, past_states
from apt_training.data.views import cropped, fitted
from apt_training.episodes.episode import CameraFrame, EpisodeError, EpisodeFacts
from apt_training.episodes.read import Episode


class DatasetMismatchError(EpisodeError):
    """An episode without the arms or cameras that its dataset is declared to have, though nothing is wrong with it."""

    def __init__(self, message: str, facts: EpisodeFacts) -> None:
        super().__init__(message)
        self.facts = facts
        """Of the episode."""


class _Choice(NamedTuple):
    """Everything about a sample that training draws."""

    frame: int
    wording: int
    cameras: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    """Per arm, its reference cameras; the first that shows anything is taken."""


class EpisodeDataset(Dataset[Sample]):
    """The episodes of one dataset; picklable, and used on either side of a fork."""

    def __init__(self, files: Sequence[Path], declaration: Declaration, *, window: Window | None = None,
                 augmentation: Augmentation = NO_AUGMENTATION, shuffle_cameras: bool = False,
                 root: Path | None = None, videos: Path | None = None) -> None:
        """Describe the dataset; no file is opened.

        Args:
            files: its episodes.
            declaration: what is known of it.
            window: the size of its samples; None: 256 px, 32 future states.
            augmentation: what :meth:`sample` changes in images.
            shuffle_cameras: whether :meth:`sample` does, where the declaration lets it.
            root: folder of the dataset, which names of files and samples are relative to; None: their own.
            videos: folder that names of videos are relative to; None: that of each file.

        Raises:
            ValueError: no files.
        """
        if not files:
            raise ValueError(f'dataset {declaration.name} has no episodes')
        self.declaration = declaration
        self.window = window or Window()
        self.files = [Path(file) for file in files]
        self._augmentation = augmentation
        self._shuffle = shuffle_cameras and declaration.shuffle_cameras
        self._root, self._videos = root, videos
        self._shelf = Shelf()
        self._pid = os.getpid()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, '_shelf': Shelf()}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, where: tuple[int, int]) -> Sample:
        return self.at(*where)

    def episode(self, index: int) -> Episode:
        """An episode of the dataset, kept at hand for a while."""
        if self._pid != os.getpid():
            self._shelf, self._pid = Shelf(), os.getpid()
        return self._shelf.take(index, lambda: self._episode_at(self.files[index]))

    def close(self) -> None:
        """Close every file; they are opened again when they are needed."""
        self._shelf.clear()

    def at(self, episode: int, frame: int) -> Sample:
        """The sample of one frame, the same every time: first wording, cameras in order, first
        reference camera of each arm, no augmentation.

        Raises:
            EpisodeError: the file cannot be read, or does not fit the declaration.
        """
        opened = self.episode(episode)
        cameras = self._cameras(opened)
        references = self._candidates(opened, cameras)
        return self._build(opened, _Choice(frame, 0, cameras, tuple(references)), None)

    def sample(self, episode: int, rng: np.random.Generator) -> Sample:
        """A random frame of an episode, for training.

        Raises:
            EpisodeError: as :meth:`at`.
        """
        opened = self.episode(episode)
        cameras = self._cameras(opened)
        frame, wording = int(rng.integers(len(opened))), int(rng.integers(max(1, len(opened.facts.prompts))))
        references = [_shuffled(candidates, rng) for candidates in self._candidates(opened, cameras)]
        cameras = _shuffled(cameras, rng) if self._shuffle else cameras
        return self._build(opened, _Choice(frame, wording, cameras, tuple(references)), rng)

    def check(self, index: int) -> None:
        """Read everything of an episode but its pixels.

        Raises:
            EpisodeError: the file is bad, or does not fit the declaration.
        """
        with self._episode_at(self.files[index]) as episode:
            episode.check()
            self._candidates(episode, self._cameras(episode))
            _chosen_arms(episode.facts, self.declaration, episode.path)

    def _episode_at(self, file: Path) -> Episode:
        videos = self._videos
        if videos is not None and self._root is not None and self.declaration.videos is Videos.MIRROR:
            videos /= file.parent.relative_to(self._root)
        return Episode(file, video_root=videos)

    def _name_of(self, file: Path) -> str:
        return str(file.name if self._root is None else file.relative_to(self._root))

    def _cameras(self, episode: Episode) -> tuple[str, ...]:
        there = episode.facts.cameras
        wanted = self.declaration.cameras or there
        missing = [name for name in wanted if name not in there]
        if missing:
            raise DatasetMismatchError(
                f'{episode.path} has no camera {missing[0]!r}, which dataset {self.declaration.name} needs; it has '
                f'{", ".join(there)}', episode.facts)
        return wanted

    def _candidates(self, episode: Episode, cameras: tuple[str, ...]) -> list[tuple[str, ...]]:
        """Per chosen arm, the cameras that its actions may be expressed in."""
        chosen = _chosen_arms(episode.facts, self.declaration, episode.path)
        rows, order = self.declaration.reference_cameras, self.declaration.ee_indices
        if not rows:
            return [cameras] * len(chosen)
        named = dict(zip(order or range(len(rows)), rows, strict=True))
        if not set(chosen) <= set(named):
            raise DatasetMismatchError(
                f'{episode.path} is to teach arms {list(chosen)}; dataset {self.declaration.name} names reference '
                f'cameras of arms {list(named)}', episode.facts)
        return [named[arm] for arm in chosen]

    def _build(self, episode: Episode, choice: _Choice, rng: np.random.Generator | None) -> Sample:
        declaration, window, facts, frame = self.declaration, self.window, episode.facts, choice.frame
        views = [episode.view(name, frame) for name in choice.cameras]
        rgb, mask, intrinsics = self._images(views, choice.cameras, rng)
        arms = list(_chosen_arms(facts, declaration, episode.path))
        times = episode.timestamps
        if declaration.rate_hz is not None:
            times = np.arange(len(times)) / declaration.rate_hz
        step = declaration.step_s or declaration.step_frames / (declaration.rate_hz or facts.rate_hz)
        measured, wanted = _moved(episode.world_from_ee, episode.desired_world_from_ee, declaration.ee_forward_m)
        past = past_states(times, measured, episode.gripper, frame=frame, step=step, count=window.history)
        future = future_states(times, (measured, wanted), (episode.gripper, episode.desired_gripper), frame=frame,
                               step=step, count=window.horizon)
        seen = {name: view.world_from_camera
                for name, view, covered in zip(choice.cameras, views, mask, strict=True) if covered.any()}
        prompt = facts.prompt(choice.wording, frame)
        return Sample(
            K=intrinsics, obs_rgbs=rgb.transpose(0, 3, 1, 2)[None], obs_masks=mask[None],
            prompt_text=declaration.reword(prompt) if declaration.reword else prompt,
            obs_extrinsics=np.stack([view.world_from_camera for view in views])[None],
            current_ee_pose=measured[frame, arms],
            action_ref_pose=np.stack([_first_seen(names, seen, f'{episode.path}, frame {frame}')
                                      for names in choice.references]),
            history_ee_states=past[:, arms], gt_future_ee_states=future[:, arms],
            valid_ee_mask=_valid_arms(facts, declaration), timestamps=times[frame:frame + 1],
            cameras=choice.cameras, source=f'{declaration.name}/{self._name_of(episode.path)}:{frame}')

    def _images(self, views: Sequence[CameraFrame], cameras: Sequence[str], rng: np.random.Generator | None
                ) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.float64]]:
        """(C, S, S, 3), (C, S, S) and (C, 3, 3)."""
        changed = self._augmentation if rng is not None else NO_AUGMENTATION
        crop = draw_crop(changed, rng) if rng is not None and changed.crop else None
        made = []
        for name, view in zip(cameras, views, strict=True):
            if crop is not None and name not in self.declaration.wrist_cameras:
                view = cropped(view, crop)
            rgb, mask, intrinsics = fitted(view, self.window.image_size)
            if rng is not None and changed != NO_AUGMENTATION:
                rgb = change_colour(rgb, draw_colour(changed, rng), mask)
            made.append((rgb, mask, intrinsics))
        rgbs, masks, matrices = zip(*made, strict=True)
        return np.stack(rgbs), np.stack(masks), np.stack(matrices)


def _shuffled(names: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(names[i] for i in rng.permutation(len(names)))


def _first_seen(names: Sequence[str], seen: Mapping[str, NDArray[np.float64]], where: str) -> NDArray[np.float64]:
    found = next((seen[name] for name in names if name in seen), None)
    if found is None:
        raise EpisodeError(f'{where}: none of the reference cameras {", ".join(names)} shows anything; '
                           'an action needs one to be expressed in')
    return found


def _chosen_arms(facts: EpisodeFacts, declaration: Declaration, path: Path) -> tuple[int, ...]:
    """Positions in the file of the arms of a sample, in the model's order."""
    if declaration.arms and facts.arms != declaration.arms:
        raise DatasetMismatchError(f'{path} has arms {", ".join(facts.arms)}; dataset {declaration.name} needs '
                                   f'{", ".join(declaration.arms)}', facts)
    if declaration.ee_indices is None:
        return tuple(range(len(facts.arms)))
    chosen = facts.ee_indices or declaration.ee_indices
    if max(chosen) >= len(facts.arms) or len(chosen) > len(declaration.ee_indices):
        raise DatasetMismatchError(f'{path} has {len(facts.arms)} arms; dataset {declaration.name} wants '
                                   f'{list(chosen)} of them, at most {len(declaration.ee_indices)}', facts)
    return chosen


def _valid_arms(facts: EpisodeFacts, declaration: Declaration) -> NDArray[np.bool_]:
    """(A,) of the chosen arms."""
    if declaration.ee_indices is not None:
        return np.ones(len(facts.ee_indices or declaration.ee_indices), np.bool_)
    named = range(len(facts.arms)) if facts.ee_indices is None else facts.ee_indices
    return np.isin(np.arange(len(facts.arms)), list(named))


def _moved(measured: NDArray[np.float64], wanted: NDArray[np.float64] | None, forward_m: float
           ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Poses whose origin lies ``forward_m`` farther along z."""
    if not forward_m:
        return measured, wanted
    along = np.eye(4)
    along[2, 3] = forward_m
    return measured @ along, None if wanted is None else wanted @ along
