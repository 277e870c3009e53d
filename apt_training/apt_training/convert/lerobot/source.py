"""Source ``apt-convert --from lerobot``: conversion jobs of LeRobotDataset folders."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from apt_policy.core.contract import RobotContract, contract_to_dict
from apt_training.convert.arguments import ConvertArguments
from apt_training.convert.lerobot.files import LerobotError
from apt_training.convert.lerobot.folder import INFO, EpisodeEntry, EpisodeRows, LerobotFolder
from apt_training.convert.lerobot.frame_builder import LerobotFrameBuilder
from apt_training.convert.lerobot.map import Calibration, LerobotMap, default_map, load_calibrations, load_map
from apt_training.convert.source import (
    CONVERTER_VERSION,
    ConversionJob,
    ConversionReport,
    ConvertError,
    EpisodeStream,
    SkipEpisodeError,
    SkipReason,
)
from apt_training.episodes.episode import EpisodeFacts, Frame, Subtask

EPISODES_PER_JOB = 20
"""Maximum number of episodes of a job."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LerobotConversionConfig:
    """Configuration of the conversion of one dataset."""

    contract: RobotContract
    """The robot."""
    names: LerobotMap
    """Map from columns and features."""
    calibrations: Mapping[str, Calibration]
    """Calibration by camera."""
    rate_hz: float
    """Rate of the episodes [Hz]."""
    notes: tuple[str, ...]
    """Sentences about assumptions."""


def list_jobs(arguments: ConvertArguments, contract: RobotContract) -> Sequence[ConversionJob]:
    """Divide the folders ``arguments.inputs`` into jobs of :data:`EPISODES_PER_JOB` episodes.

    Raises:
        ConvertError: a folder is no dataset, or does not fit the map or the contract.
    """
    jobs: list[ConversionJob] = []
    roots = [Path(path) for path in arguments.inputs]
    for name, root in zip(_names(roots), roots, strict=True):
        folder = LerobotFolder(root)
        config = _config(folder, contract, arguments)
        LerobotFrameBuilder(contract, folder, config.names, config.calibrations)
        count = sum(1 for _ in folder.episodes())
        if not count:
            raise ConvertError(f'{root} has no episodes: omit it')
        jobs += [LerobotJob(name=f'{name}-{first:06d}', path=str(root), first=first,
                             last=min(first + EPISODES_PER_JOB, count), config=config)
                 for first in range(0, count, EPISODES_PER_JOB)]
    return jobs


@dataclass(kw_only=True, eq=False)
class LerobotJob:
    """Range of episodes of a dataset to convert; a :class:`~apt_training.convert.source.ConversionJob`."""

    name: str
    """Stem of file names."""
    path: str
    """Folder of the dataset."""
    first: int
    """Index of the first episode."""
    last: int
    """Index after the last episode."""
    config: LerobotConversionConfig
    _damage: list[str] = field(default_factory=list)

    def identity(self) -> str:
        """Return a hash of the configuration and of the sizes and times of the files."""
        config, root = self.config, Path(self.path)
        files = sorted({file for episode in self._entries() for file in episode.files} | {root / INFO})
        facts = {'version': CONVERTER_VERSION, 'contract': contract_to_dict(config.contract),
                 'names': repr(config.names), 'calibrations': repr(sorted(config.calibrations.items())),
                 'rate_hz': config.rate_hz, 'range': (self.first, self.last),
                 'files': [(str(file.relative_to(root)), *_size_and_time(file)) for file in files]}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def episodes(self, done: Callable[[int], bool], progress: Callable[[float, int], None]
                 ) -> Iterator[EpisodeStream]:
        """Yield the missing episodes.

        Raises:
            ConvertError: the dataset changed since the jobs were listed.
        """
        folder = LerobotFolder(Path(self.path))
        builder = LerobotFrameBuilder(self.config.contract, folder, self.config.names, self.config.calibrations)
        entries, frames = self._entries(), 0
        for index, entry in enumerate(entries):
            if not done(index):
                stream = LerobotEpisode(index=index, folder=folder, entry=entry, builder=builder,
                                        config=self.config, damage=self._damage)
                yield stream
                frames += stream.frame_count
            progress((index + 1) / len(entries), frames)

    def report(self) -> ConversionReport:
        """Return the assumptions, and what could not be read."""
        return ConversionReport(notes=self.config.notes, damage='\n'.join(self._damage))

    def _entries(self) -> list[EpisodeEntry]:
        return list(LerobotFolder(Path(self.path)).episodes())[self.first:self.last]


@dataclass(kw_only=True, eq=False)
class LerobotEpisode:
    """Episode of a dataset; an :class:`~apt_training.convert.source.EpisodeStream`."""

    index: int
    folder: LerobotFolder
    entry: EpisodeEntry
    builder: LerobotFrameBuilder
    config: LerobotConversionConfig
    damage: list[str]
    """List of the job, to which errors are appended."""
    frame_count: int = 0
    """Number of frames so far."""
    _tasks: tuple[str, ...] = ()
    """Task of each frame."""

    @property
    def facts(self) -> EpisodeFacts:
        """Facts; instructions are complete after the last frame."""
        contract, subtasks = self.config.contract, _subtasks(self._tasks)
        return EpisodeFacts(
            prompts=(subtasks[0].description,) if len(subtasks) == 1 and subtasks[0].description else (),
            subtasks=subtasks if len(subtasks) > 1 else (), rate_hz=self.config.rate_hz, arms=tuple(contract.arms),
            cameras=tuple(contract.cameras), label_source=self.builder.labels, contract=contract.policy_facts(),
            source_hash=_source_hash(self.folder.root, self.entry), converter_version=CONVERTER_VERSION)

    def frames(self) -> Iterator[Frame]:
        """Yield the frames at the configured rate.

        Raises:
            SkipEpisodeError: part of the episode is missing or damaged.
        """
        try:
            rows = self.folder.rows(self.entry, self.builder.features, self.builder.images)
            selected, stamps_s = _ticks(rows, self.config.rate_hz)
            self._tasks = tuple(rows.tasks[row] for row in selected)
            for frame in self.builder.frames(self.folder, self.entry, rows, selected, stamps_s):
                self.frame_count += 1
                yield frame
        except LerobotError as error:
            self.damage.append(str(error))
            raise SkipEpisodeError(SkipReason.DAMAGED, str(error)) from error


def _ticks(rows: EpisodeRows, rate_hz: float) -> tuple[list[int], list[float]]:
    """Return the numbers of rows and their stamps [s]: at each tick the newest row that is not after it."""
    times = rows.timestamps
    # Times are stored in single precision: a row may seem to be a little later than its tick.
    slack = 1e-3 / rate_hz
    stamps = times[0] + np.arange(int((times[-1] - times[0] + slack) * rate_hz) + 1) / rate_hz
    return (np.searchsorted(times, stamps + slack, side='right') - 1).tolist(), stamps.tolist()


def _subtasks(tasks: Sequence[str]) -> tuple[Subtask, ...]:
    """Return the ranges of frames with one task each."""
    starts = [index for index, task in enumerate(tasks) if index == 0 or task != tasks[index - 1]]
    return tuple(Subtask(start=start, description=tasks[start].strip()) for start in starts)


def _config(folder: LerobotFolder, contract: RobotContract, arguments: ConvertArguments) -> LerobotConversionConfig:
    notes = [f'LeRobot {folder.version}, {folder.fps:g} frames/s; joint angles are taken as radians of the '
             "contract's chain"]
    if arguments.lerobot_map is not None:
        names = load_map(arguments.lerobot_map)
    else:
        columns = folder.columns('observation.state')
        names = default_map(contract, columns, folder.image_keys, has_action=folder.has_feature('action'),
                            source=str(folder.root))
        notes += _name_notes(contract, columns, names)
    calibrations = dict(load_calibrations(arguments.intrinsics)) if arguments.intrinsics is not None else {}
    unknown = sorted(set(calibrations) - set(contract.cameras))
    if unknown:
        raise LerobotError(f'{arguments.intrinsics} has the camera {unknown[0]!r}, expected cameras of the contract: '
                           f'{", ".join(contract.cameras)}')
    assumed = [name for name, key in names.cameras.items() if key is not None and name not in calibrations]
    if arguments.fov is not None and assumed:
        if not 0 < arguments.fov < 180:
            raise LerobotError(f'--fov is {arguments.fov:g}, expected degrees between 0 and 180')
        calibrations |= {name: Calibration(horizontal_fov_deg=arguments.fov) for name in assumed}
        notes.append(f'{", ".join(assumed)}: assumed a pinhole of {arguments.fov:g} deg across, without distortion')
    notes += [f'{name}: not in the dataset, stored black and masked' for name, key in names.cameras.items()
              if key is None]
    rate_hz = arguments.lerobot_rate or min(1.0 / contract.step_s, folder.fps)
    if not 0 < rate_hz <= folder.fps:
        raise LerobotError(f'--lerobot-rate is {rate_hz:g} Hz, expected at most the {folder.fps:g} frames/s of '
                           f'{folder.root}')
    return LerobotConversionConfig(contract=contract, names=names, calibrations=calibrations, rate_hz=rate_hz,
                           notes=tuple(f'{folder.root.name}: {note}' for note in notes))


def _name_notes(contract: RobotContract, columns: Sequence[str], names: LerobotMap) -> list[str]:
    if columns[0].isdigit():
        return [f'columns have no names: assigned to {", ".join(contract.arms)}, each with its gripper last']
    order = sorted(names.arms, key=lambda arm: columns.index(str(names.arms[arm].joints[0])))
    if order != list(contract.arms):
        return [f'columns name {" before ".join(order)}, but some converters write such names over data in the other '
                'order: check the rings of apt-inspect --png, and assign the columns in --lerobot-map if the arms '
                'are swapped']
    return []


def _names(roots: Sequence[Path]) -> list[str]:
    """Return names for jobs: those of the folders, with a number where two are equal."""
    plain = [''.join(char if char.isalnum() or char in '-_.' else '_' for char in root.resolve().name)
             for root in roots]
    return [name if plain.count(name) == 1 else f'{name}.{plain[:index].count(name)}'
            for index, name in enumerate(plain)]


def _source_hash(root: Path, entry: EpisodeEntry) -> str:
    parts = [str(entry.index), *(_digest(file, *_size_and_time(file)) for file in (root / INFO, *entry.files))]
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()


@lru_cache(maxsize=256)
def _digest(file: Path, size: int, time_ns: int) -> str:
    """Return the hash of a file, cached by size and time: a file has many episodes."""
    digest = hashlib.sha256()
    try:
        with file.open('rb') as stream:
            while part := stream.read(1 << 20):
                digest.update(part)
    except OSError:
        return f'unreadable {size} {time_ns}'
    return digest.hexdigest()


def _size_and_time(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
