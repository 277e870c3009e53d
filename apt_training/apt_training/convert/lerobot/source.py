"""``apt-convert --from lerobot``: LeRobotDataset folders as a source of episodes.

Cuts datasets into units and reports what was assumed; reading is ``folder``'s, what the
columns mean ``map``'s and ``robot``'s.
"""

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
from apt_training.convert.lerobot.folder import INFO, EpisodeEntry, LerobotFolder, Rows
from apt_training.convert.lerobot.map import Calibration, LerobotMap, default_map, load_calibrations, load_map
from apt_training.convert.lerobot.robot import RobotReader
from apt_training.convert.source import (
    CONVERTER_VERSION,
    ConvertError,
    EpisodeStream,
    Refusal,
    RefusedError,
    Unit,
    UnitReport,
)
from apt_training.episodes.episode import EpisodeFacts, Frame, Subtask

EPISODES_PER_UNIT = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class LerobotSettings:
    """How one dataset is read."""

    contract: RobotContract
    names: LerobotMap
    calibrations: Mapping[str, Calibration]
    rate_hz: float
    """Of the episodes."""
    notes: tuple[str, ...]
    """What was assumed."""


def units(arguments: ConvertArguments, contract: RobotContract) -> Sequence[Unit]:
    """Cut the folders ``arguments.inputs`` into units of :data:`EPISODES_PER_UNIT` episodes.

    Raises:
        ConvertError: a folder that is no dataset, or that neither map nor contract fits.
    """
    made: list[Unit] = []
    roots = [Path(path) for path in arguments.inputs]
    for name, root in zip(_names(roots), roots, strict=True):
        folder = LerobotFolder(root)
        settings = _settings(folder, contract, arguments)
        RobotReader(contract, folder, settings.names, settings.calibrations)
        count = sum(1 for _ in folder.episodes())
        if not count:
            raise ConvertError(f'{root} has no episodes')
        made += [LerobotUnit(name=f'{name}-{first:06d}', path=str(root), first=first,
                             last=min(first + EPISODES_PER_UNIT, count), settings=settings)
                 for first in range(0, count, EPISODES_PER_UNIT)]
    return made


@dataclass(kw_only=True, eq=False)
class LerobotUnit:
    """Some episodes of a dataset, by their place in it; implements :class:`~apt_training.convert.source.Unit`."""

    name: str
    path: str
    first: int
    last: int
    """Behind the last one."""
    settings: LerobotSettings
    _damage: list[str] = field(default_factory=list)

    def identity(self) -> str:
        """Of the settings and of the sizes and times of the files."""
        settings, root = self.settings, Path(self.path)
        files = sorted({file for episode in self._entries() for file in episode.files} | {root / INFO})
        facts = {'version': CONVERTER_VERSION, 'contract': contract_to_dict(settings.contract),
                 'names': repr(settings.names), 'calibrations': repr(sorted(settings.calibrations.items())),
                 'rate_hz': settings.rate_hz, 'range': (self.first, self.last),
                 'files': [(str(file.relative_to(root)), *_size_and_time(file)) for file in files]}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def episodes(self, done: Callable[[int], bool], progress: Callable[[float, int], None]
                 ) -> Iterator[EpisodeStream]:
        """Those that are not there yet.

        Raises:
            ConvertError: the dataset changed since it was cut into units.
        """
        folder = LerobotFolder(Path(self.path))
        reader = RobotReader(self.settings.contract, folder, self.settings.names, self.settings.calibrations)
        entries, frames = self._entries(), 0
        for index, entry in enumerate(entries):
            if not done(index):
                stream = LerobotEpisode(index=index, folder=folder, entry=entry, reader=reader,
                                        settings=self.settings, damage=self._damage)
                yield stream
                frames += stream.taken
            progress((index + 1) / len(entries), frames)

    def report(self) -> UnitReport:
        """What was assumed, and what could not be read."""
        return UnitReport(notes=self.settings.notes, damage='\n'.join(self._damage))

    def _entries(self) -> list[EpisodeEntry]:
        return list(LerobotFolder(Path(self.path)).episodes())[self.first:self.last]


@dataclass(kw_only=True, eq=False)
class LerobotEpisode:
    """One episode; implements :class:`~apt_training.convert.source.EpisodeStream`."""

    index: int
    folder: LerobotFolder
    entry: EpisodeEntry
    reader: RobotReader
    settings: LerobotSettings
    damage: list[str]
    """Shared with the unit."""
    taken: int = 0
    """Frames that were made."""
    _tasks: tuple[str, ...] = ()
    """Of the frames."""

    @property
    def facts(self) -> EpisodeFacts:
        """Instructions are known once the frames are taken."""
        contract, parts = self.settings.contract, _parts(self._tasks)
        return EpisodeFacts(
            prompts=(parts[0].description,) if len(parts) == 1 and parts[0].description else (),
            subtasks=parts if len(parts) > 1 else (), rate_hz=self.settings.rate_hz, arms=tuple(contract.arms),
            cameras=tuple(contract.cameras), label_source=self.reader.labels, contract=contract.policy_facts(),
            source_hash=_source_hash(self.folder.root, self.entry), converter_version=CONVERTER_VERSION)

    def frames(self) -> Iterator[Frame]:
        """At the rate that is kept, as of the past.

        Raises:
            RefusedError: something of it is missing or damaged.
        """
        try:
            rows = self.folder.rows(self.entry, self.reader.features, self.reader.images)
            picked, stamps_s = _ticks(rows, self.settings.rate_hz)
            self._tasks = tuple(rows.tasks[row] for row in picked)
            for frame in self.reader.frames(self.folder, self.entry, rows, picked, stamps_s):
                self.taken += 1
                yield frame
        except LerobotError as error:
            self.damage.append(str(error))
            raise RefusedError(Refusal.DAMAGED, str(error)) from error


def _ticks(rows: Rows, rate_hz: float) -> tuple[list[int], list[float]]:
    """Rows to keep and their stamps: at each tick the newest row that is not after it."""
    times = rows.timestamps
    # Times are stored in single precision: a row may claim to be a little later than its tick.
    slack = 1e-3 / rate_hz
    stamps = times[0] + np.arange(int((times[-1] - times[0] + slack) * rate_hz) + 1) / rate_hz
    return (np.searchsorted(times, stamps + slack, side='right') - 1).tolist(), stamps.tolist()


def _parts(tasks: Sequence[str]) -> tuple[Subtask, ...]:
    """Stretches of frames with one task each."""
    starts = [index for index, task in enumerate(tasks) if index == 0 or task != tasks[index - 1]]
    return tuple(Subtask(start=start, description=tasks[start].strip()) for start in starts)


def _settings(folder: LerobotFolder, contract: RobotContract, arguments: ConvertArguments) -> LerobotSettings:
    notes = [f'LeRobot {folder.version}, {folder.fps:g} frames/s; joint angles are taken as radians of the '
             "contract's chain"]
    if arguments.lerobot_map is not None:
        names = load_map(arguments.lerobot_map)
    else:
        columns = folder.columns('observation.state')
        names = default_map(contract, columns, folder.image_keys, has_action=folder.has('action'),
                            source=str(folder.root))
        notes += _name_notes(contract, columns, names)
    calibrations = dict(load_calibrations(arguments.intrinsics)) if arguments.intrinsics is not None else {}
    unknown = sorted(set(calibrations) - set(contract.cameras))
    if unknown:
        raise LerobotError(f'{arguments.intrinsics} calibrates {unknown[0]!r}; the contract has the cameras '
                           f'{", ".join(contract.cameras)}')
    assumed = [name for name, key in names.cameras.items() if key is not None and name not in calibrations]
    if arguments.fov is not None and assumed:
        if not 0 < arguments.fov < 180:
            raise LerobotError(f'--fov is {arguments.fov:g}; expected degrees between 0 and 180')
        calibrations |= {name: Calibration(horizontal_fov_deg=arguments.fov) for name in assumed}
        notes.append(f'{", ".join(assumed)}: assumed a pinhole of {arguments.fov:g} deg across, without distortion')
    notes += [f'{name}: not in the dataset, stored black and masked' for name, key in names.cameras.items()
              if key is None]
    rate_hz = arguments.lerobot_rate or min(1.0 / contract.step_s, folder.fps)
    if not 0 < rate_hz <= folder.fps:
        raise LerobotError(f'--lerobot-rate is {rate_hz:g} Hz; {folder.root} has {folder.fps:g} frames/s: '
                           'give at most that')
    return LerobotSettings(contract=contract, names=names, calibrations=calibrations, rate_hz=rate_hz,
                           notes=tuple(f'{folder.root.name}: {note}' for note in notes))


def _name_notes(contract: RobotContract, columns: Sequence[str], names: LerobotMap) -> list[str]:
    if columns[0].isdigit():
        return [f'columns have no names: taken as {", ".join(contract.arms)}, each with its gripper behind its joints']
    order = sorted(names.arms, key=lambda arm: columns.index(str(names.arms[arm].joints[0])))
    if order != list(contract.arms):
        return [f'columns name {" before ".join(order)}; some converters write such names over data in the other '
                'order: look at the rings of apt-inspect --png, and number the columns in --lerobot-map if the arms '
                'are swapped']
    return []


def _names(roots: Sequence[Path]) -> list[str]:
    """Of units: after the folders, with a number where two are called the same."""
    plain = [''.join(sign if sign.isalnum() or sign in '-_.' else '_' for sign in root.resolve().name)
             for root in roots]
    return [name if plain.count(name) == 1 else f'{name}.{plain[:index].count(name)}'
            for index, name in enumerate(plain)]


def _source_hash(root: Path, entry: EpisodeEntry) -> str:
    parts = [str(entry.index), *(_digest(file, *_size_and_time(file)) for file in (root / INFO, *entry.files))]
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()


@lru_cache(maxsize=256)
def _digest(file: Path, size: int, time_ns: int) -> str:
    """Of the contents; files hold many episodes, so it is kept as long as size and time stay."""
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
