"""What does the loader cost beside what must be done anyway? And does its memory stay flat?

``loader_over_bare_loop``: images per second of ``MixtureLoader`` over those of a bare loop on as many
processes, which only reads JPEG bytes with h5py, decodes and resizes. Episodes of four cameras, 640x480,
to 256 px; both open each file once and keep it open; no augmentation. The bare loop resizes as
``core.images`` does, halving first: one average by 2.5 takes 1.7 ms more, and would flatter the loader.
What the loader does besides:
draws, poses and their windows, prompts, masks, intrinsics, batches, and handing these to the trainer.
``.._256`` is the same with images stored at 256 px, as apt-convert stores them: nothing is left to resize.

``loader_memory_growth_mb``: growth of the resident memory of trainer and loading processes, as a straight
line through samples of it in the second half of GROWTH_DRAWS draws, carried on to an hour at 64 samples/s. Images
are small there and files many: two draws of three open one and close another.
"""

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import h5py
import numpy as np
from ledger import record

from apt_training.data.augment import NO_AUGMENTATION, Augmentation
from apt_training.data.dataset import EpisodeDataset
from apt_training.data.dataset_spec import DatasetSpec
from apt_training.data.loader import MixtureLoader
from apt_training.data.mixture import Mixture, MixtureComponent
from apt_training.data.sample import Window
from apt_training.episodes.episode import CameraFrame, EpisodeFacts, Frame, LabelSource
from apt_training.episodes.write import EpisodeWriter

COMMAND = 'python benchmarks/bench_loader.py'
SIDE, BATCH, PROCESSES, ROUNDS = 256, 16, 2, 5
CAMERAS = ('cam_high', 'cam_low', 'cam_left_wrist', 'cam_right_wrist')
EPISODES, FRAMES = 8, 40
ROUND_IMAGES = PROCESSES * BATCH * len(CAMERAS) * 6
GROWTH_DRAWS, GROWTH_EPISODES = 16_000, 100
HOUR = 3600 * 64
Files = Sequence[Path]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        large = write_episodes(Path(folder) / 'large', EPISODES, (480, 640), FRAMES)
        small = write_episodes(Path(folder) / 'small', EPISODES, (SIDE, SIDE), FRAMES)
        tiny = write_episodes(Path(folder) / 'tiny', GROWTH_EPISODES, (8, 8), 4, CAMERAS[:1])
        for name, files, goal in (('', large, '>= 0.8'), ('_256', small, '')):
            bare, plain, augmented = compare(files)
            print(f'{files[0].parent.name}: bare loop {bare:.0f}, loader {plain:.0f}, with augmentation '
                  f'{augmented:.0f} images/s on {PROCESSES} processes')
            record(name=f'loader_over_bare_loop{name}', value=plain / bare, unit='of its images/s', goal=goal,
                   command=COMMAND)
            record(name=f'loader_samples_per_s{name}', value=plain / len(CAMERAS), goal='', command=COMMAND,
                   unit='samples/s of four cameras')
            record(name=f'loader_augmented_samples_per_s{name}', value=augmented / len(CAMERAS), goal='',
                   unit='samples/s of four cameras', command=COMMAND)
        record(name='loader_memory_growth_mb', value=memory_growth_mb(tiny), goal='<= 64', command=COMMAND,
               unit=f'MB in an hour at 64 samples/s, from {GROWTH_DRAWS} draws')


def compare(files: Files) -> tuple[float, float, float]:
    """Images per second of the bare loop, the loader, and the loader with augmentation: medians of
    rounds that take turns."""
    with BareLoops(files) as bare:
        contestants: list[Callable[[], float]] = [
            bare.rate, lambda: rate(files, NO_AUGMENTATION), lambda: rate(files, Augmentation(crop=0.05))]
        rates: list[list[float]] = [[] for _ in contestants]
        for _ in range(ROUNDS):
            for contestant, taken in zip(contestants, rates, strict=True):
                taken.append(contestant())
    plain, loaded, augmented = (statistics.median(taken) for taken in rates)
    return plain, loaded, augmented


def loader_of(files: Files, augmentation: Augmentation, workers: int = PROCESSES) -> MixtureLoader:
    dataset = EpisodeDataset(files, DatasetSpec(name='bench', step_s=0.1), window=Window(image_size=SIDE),
                             shuffle_cameras=True, augmentation=augmentation)
    return MixtureLoader(Mixture([MixtureComponent(dataset=dataset, weight=1.0)], seed=0), BATCH, workers=workers)


def rate(files: Files, augmentation: Augmentation) -> float:
    """Images per second of a loader of its own: one that lived on would prepare batches while others are timed."""
    loader = loader_of(files, augmentation)
    # Behind these, as much is under way when the clock stops as when it starts.
    for _ in range(2 * PROCESSES + 1):
        next(loader)
    began = time.perf_counter()
    images = 0
    while images < ROUND_IMAGES:
        images += next(loader).rgb.shape[:2].numel()
    taken = time.perf_counter() - began
    loader.close()
    return images / taken


class BareLoops:
    """Processes that read, decode and resize, and do nothing else."""

    def __init__(self, files: Files) -> None:
        context = multiprocessing.get_context('fork')
        pipes = [context.Pipe() for _ in range(PROCESSES)]
        self._ends = [mine for mine, _ in pipes]
        self._processes = [context.Process(target=bare_loop, args=(theirs, files, seed))
                           for seed, (_, theirs) in enumerate(pipes)]

    def __enter__(self) -> 'BareLoops':
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        for end, process in zip(self._ends, self._processes, strict=True):
            end.send(0)
            process.join()

    def rate(self) -> float:
        """Images per second of all of them together."""
        began = time.perf_counter()
        for end in self._ends:
            end.send(ROUND_IMAGES // PROCESSES)
        for end in self._ends:
            end.recv()
        return ROUND_IMAGES / (time.perf_counter() - began)


def bare_loop(end: Connection, files: Files, seed: int) -> None:
    cv2.setNumThreads(0)
    rng = np.random.default_rng(seed)
    opened = [h5py.File(file) for file in files]
    while count := end.recv():
        for number in range(count):
            images = opened[rng.integers(len(opened))][CAMERAS[number % len(CAMERAS)]]['rgb']
            image = cv2.imdecode(images[rng.integers(FRAMES)], cv2.IMREAD_COLOR)
            assert image is not None, 'every image was encoded here'
            if image.shape[:2] != (SIDE, SIDE):
                half = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
                cv2.resize(half, (SIDE, SIDE * half.shape[0] // half.shape[1]), interpolation=cv2.INTER_LINEAR)
        end.send(None)


def memory_growth_mb(files: Files) -> float:
    """In an hour, by a straight line."""
    dataset = EpisodeDataset(files, DatasetSpec(name='bench'), window=Window(image_size=8))
    loader = MixtureLoader(Mixture([MixtureComponent(dataset=dataset, weight=1.0)], seed=0), 64, workers=1)
    at, used = [], []
    draws = 0
    while draws < GROWTH_DRAWS:
        draws += len(next(loader).sources)
        # Open files and what the allocator keeps for them fill first: from 40,000 draws of four cameras in one
        # process, memory rose until draw 8,000 and then not at all.
        if draws > GROWTH_DRAWS // 2:
            at.append(draws)
            used.append(resident_mb())
    loader.close()
    return float(np.polyfit(at, used, 1)[0] * HOUR)


def resident_mb() -> float:
    """Of this process and its children."""
    page = os.sysconf('SC_PAGE_SIZE')
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    return sum(int(Path(f'/proc/{pid}/statm').read_text().split()[1]) for pid in pids) * page / 1e6


def write_episodes(folder: Path, count: int, size: tuple[int, int], frames: int,
                   cameras: Sequence[str] = CAMERAS) -> list[Path]:
    """Photograph-like images: smooth, with some noise."""
    rng = np.random.default_rng(0)
    height, width = size
    noise = rng.normal(0, 60, (height, width, 3)).astype(np.float32)
    picture = np.clip(cv2.GaussianBlur(20 * noise, (0, 0), max(1.0, height / 20)) + noise / 20 + 120, 0, 255)
    facts = EpisodeFacts(prompts=('put the red cube into the tray',), rate_hz=10.0, arms=('left', 'right'),
                         cameras=tuple(cameras), label_source=LabelSource.MEASURED, contract=None, source_hash='',
                         converter_version='')
    intrinsics = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
    files = [folder / f'{index:04d}.h5' for index in range(count)]
    for index, file in enumerate(files):
        with EpisodeWriter(file, facts) as writer:
            for step in range(frames):
                image = np.roll(picture, (7 * step + index, 3 * step), (0, 1)).astype(np.uint8)
                views = {name: CameraFrame(rgb=image, mask=None, intrinsics=intrinsics, world_from_camera=np.eye(4))
                         for name in cameras}
                writer.append_frame(Frame(stamp_s=0.1 * step, world_from_ee=np.tile(np.eye(4), (2, 1, 1)),
                                 gripper=np.zeros(2), desired_world_from_ee=None, desired_gripper=None, views=views))
    return files


if __name__ == '__main__':
    main()
