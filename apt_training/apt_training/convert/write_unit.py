"""From the episodes of a unit to files: whole ones only, none twice, and a journal of what was done.

A file that is there is not written again, so an interrupted conversion goes on where it stopped.
The journal says from what a unit's files were made; files of other input are never mixed in.
"""

import errno
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from apt_policy.core.atomic import write_text
from apt_training.convert.source import ConvertError, EpisodeStream, RefusedError, StreamLine, Unit, UnitReport
from apt_training.episodes.episode import EpisodeError, Storage
from apt_training.episodes.files import SUFFIX
from apt_training.episodes.write import EpisodeWriter

JOURNALS = '.apt-convert'
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where episodes go, and how they are kept."""

    folder: Path
    storage: Storage = Storage.JPEG
    jpeg_quality: int = 95
    force: bool = False
    """Convert again what is there."""

    def file(self, unit: str, index: int) -> Path:
        """Of one episode."""
        return self.folder / f'{unit}_{index:04d}{SUFFIX}'

    def journal(self, unit: str) -> Path:
        """Of one unit."""
        return self.folder / JOURNALS / f'{unit}.json'

    def files(self, unit: str) -> list[Path]:
        """That are there of one unit, in order."""
        stem = f'{unit}_'
        return sorted(file for file in self.folder.glob(f'*{SUFFIX}')
                      if file.stem.startswith(stem) and file.stem[len(stem):].isdigit())


@dataclass(frozen=True, kw_only=True)
class Refused:
    """An episode that was left out."""

    index: int
    kind: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class UnitOutcome:
    """What became of one unit."""

    name: str
    path: str
    files: tuple[str, ...] = ()
    """Names of all episodes of the unit that are there now."""
    written: int = 0
    """Of these, by this run."""
    frames: int = 0
    """Written by this run."""
    refused: tuple[Refused, ...] = ()
    error: str = ''
    """Why the unit could not be finished; names the file."""
    disk_full: bool = False
    report: UnitReport = field(default_factory=UnitReport)

    @property
    def failed(self) -> bool:
        """Whether the input, or part of it, could not be converted."""
        return bool(self.error or self.report.damage)


@dataclass
class _Progress:
    """What happened so far."""

    written: int = 0
    frames: int = 0
    refused: list[Refused] = field(default_factory=list)


def convert_unit(unit: Unit, output: Output, progress: Callable[[float, int], None]) -> UnitOutcome:
    """Convert what is missing of a unit; errors of the input or the disk are part of the outcome.

    Args:
        unit: what to convert.
        output: where to.
        progress: is told the share of the unit that was read, and how many frames came out.
    """
    so_far = _Progress()
    error, full = '', False
    try:
        identity = _text_of(unit, output)
        finished = _begin(unit, output, identity)
        if finished is not None:
            return finished
        for episode in unit.episodes(lambda index: output.file(unit.name, index).exists(), progress):
            _write(episode, unit, output, so_far)
    except ConvertError as problem:
        error = str(problem)
    except OSError as problem:
        full = problem.errno in _FULL
        error = _explained(problem, unit, output, full)
    outcome = UnitOutcome(
        name=unit.name, path=unit.path, files=tuple(file.name for file in output.files(unit.name)),
        written=so_far.written, frames=so_far.frames, refused=tuple(so_far.refused), error=error, disk_full=full,
        report=unit.report())
    if not error:
        _write_journal(output.journal(unit.name), {'identity': identity, 'outcome': asdict(outcome)})
    return outcome


def _begin(unit: Unit, output: Output, identity: str) -> UnitOutcome | None:
    """Prepare the folder; the outcome, if all was done before.

    Raises:
        ConvertError: there are files that were made from something else.
    """
    journal = output.journal(unit.name)
    there = output.files(unit.name)
    if output.force:
        for file in there:
            _remove(file)
    else:
        known = _read_journal(journal)
        if there and known.get('identity') != identity:
            raise ConvertError(f'{there[0]} exists, and was not made from {unit.path} with these settings; choose '
                               'another --out, or convert again with --force')
        finished = _outcome(known.get('outcome'))
        if finished is not None and known.get('identity') == identity and all(
                (output.folder / name).exists() for name in finished.files):
            return replace(finished, written=0, frames=0)
    _write_journal(journal, {'identity': identity})
    return None


def _write(episode: EpisodeStream, unit: Unit, output: Output, so_far: _Progress) -> None:
    path = output.file(unit.name, episode.index)
    count = 0
    try:
        with EpisodeWriter(path, episode.facts, storage=output.storage, jpeg_quality=output.jpeg_quality) as writer:
            for frame in episode.frames():
                writer.add(frame)
                count += 1
            writer.restate(episode.facts)
    except RefusedError as refused:
        so_far.refused.append(Refused(index=episode.index, kind=refused.kind.value, detail=refused.detail))
    except EpisodeError as error:
        so_far.refused.append(Refused(index=episode.index, kind='invalid', detail=f'{unit.path}: {error}'))
    else:
        so_far.written += 1
        so_far.frames += count


def _text_of(unit: Unit, output: Output) -> str:
    return f'{unit.identity()} {output.storage.value} {output.jpeg_quality}'


def _explained(problem: OSError, unit: Unit, output: Output, full: bool) -> str:
    name = problem.filename or output.folder
    if full:
        return (f'{unit.path}: the disk is full: {name} could not be written; what was whole before is kept. Make room '
                'in the folder and run the same command again')
    return f'{unit.path}: {name}: {problem.strerror or problem}'


def _read_journal(path: Path) -> dict[str, Any]:
    """Empty if there is none, or it cannot be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_journal(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content, sort_keys=True, indent=1) + '\n')


def _outcome(fields: Any) -> UnitOutcome | None:
    """Inverse of ``asdict``; None if it does not fit, as after an update of this program."""
    if not isinstance(fields, dict):
        return None
    try:
        report = fields['report']
        lines = tuple(StreamLine(**line) for line in report['streams'])
        return UnitOutcome(**{**fields, 'files': tuple(fields['files']),
                              'refused': tuple(Refused(**one) for one in fields['refused']),
                              'report': UnitReport(**{**report, 'streams': lines, 'notes': tuple(report['notes'])})})
    except (TypeError, KeyError):
        return None


def _remove(file: Path) -> None:
    for part in (*file.parent.glob(f'{file.stem}.*.mp4'), file):
        part.unlink(missing_ok=True)
