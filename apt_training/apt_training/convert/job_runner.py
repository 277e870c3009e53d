"""Runner of a conversion job: it writes complete episode files, and a record of the job.

Existing files are not written again, so that an interrupted conversion continues where it stopped. The record has the
identity of the input of a job's files, so that files of different inputs are never mixed.
"""

import errno
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from apt_policy.core.atomic import write_text
from apt_training.convert.source import (
    ConversionJob,
    ConversionReport,
    ConvertError,
    EpisodeStream,
    SkipEpisodeError,
    StreamStats,
)
from apt_training.episodes.episode import EpisodeError, ImageStorage
from apt_training.episodes.files import SUFFIX
from apt_training.episodes.write import EpisodeWriter

RECORDS_FOLDER = '.apt-convert'
# Errors of a full disk or quota.
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Output folder and image storage of episodes."""

    folder: Path
    """Folder of the episode files."""
    storage: ImageStorage = ImageStorage.JPEG
    jpeg_quality: int = 95
    """JPEG quality, 1 to 100."""
    force: bool = False
    """True to convert existing episodes again."""

    def episode_file(self, job: str, index: int) -> Path:
        """Return the path of an episode."""
        return self.folder / f'{job}_{index:04d}{SUFFIX}'

    def record_file(self, job: str) -> Path:
        """Return the path of the record of a job."""
        return self.folder / RECORDS_FOLDER / f'{job}.json'

    def existing_files(self, job: str) -> list[Path]:
        """Return the existing episode files of a job, in order."""
        stem = f'{job}_'
        return sorted(file for file in self.folder.glob(f'*{SUFFIX}')
                      if file.stem.startswith(stem) and file.stem[len(stem):].isdigit())


@dataclass(frozen=True, kw_only=True)
class SkippedEpisode:
    """Episode that was left out."""

    index: int
    """Index within its job."""
    kind: str
    """Value of the :class:`SkipReason`, or ``invalid``."""
    detail: str
    """Sentence with file, stream and time."""


@dataclass(frozen=True, kw_only=True)
class ConversionResult:
    """Result of one job."""

    name: str
    path: str
    files: tuple[str, ...] = ()
    """Names of all existing episode files of the job."""
    written: int = 0
    """Number of episode files that this run wrote."""
    frames: int = 0
    """Number of frames that this run wrote."""
    refused: tuple[SkippedEpisode, ...] = ()
    error: str = ''
    """Error that ended the job, with the file; empty if it was finished."""
    disk_full: bool = False
    """True if the job ended because the disk is full."""
    report: ConversionReport = field(default_factory=ConversionReport)

    @property
    def failed(self) -> bool:
        """True if the input, or part of it, could not be converted."""
        return bool(self.error or self.report.damage)


@dataclass
class _Counts:
    """Episodes and frames so far."""

    written: int = 0
    frames: int = 0
    refused: list[SkippedEpisode] = field(default_factory=list)


def run_conversion_job(job: ConversionJob, output: OutputConfig, progress: Callable[[float, int], None]
                       ) -> ConversionResult:
    """Convert the missing episodes of a job.

    Args:
        job: job to run.
        output: output folder and storage.
        progress: called with the fraction of the input that was read and the number of frames.

    Returns:
        The result, with errors of the input or the disk.
    """
    so_far = _Counts()
    error, full = '', False
    try:
        identity = _identity(job, output)
        finished = _begin(job, output, identity)
        if finished is not None:
            return finished
        for episode in job.episodes(lambda index: output.episode_file(job.name, index).exists(), progress):
            _write(episode, job, output, so_far)
    except ConvertError as problem:
        error = str(problem)
    except OSError as problem:
        full = problem.errno in _FULL
        error = _error_text(problem, job, output, full)
    result = ConversionResult(
        name=job.name, path=job.path, files=tuple(file.name for file in output.existing_files(job.name)),
        written=so_far.written, frames=so_far.frames, refused=tuple(so_far.refused), error=error, disk_full=full,
        report=job.report())
    if not error:
        _write_record(output.record_file(job.name), {'identity': identity, 'outcome': asdict(result)})
    return result


def _begin(job: ConversionJob, output: OutputConfig, identity: str) -> ConversionResult | None:
    """Prepare the folder, and return the result if the job was finished before.

    Raises:
        ConvertError: the folder has files of the same name from another input.
    """
    record = output.record_file(job.name)
    existing = output.existing_files(job.name)
    if output.force:
        for file in existing:
            _remove(file)
    else:
        known = _read_record(record)
        if existing and known.get('identity') != identity:
            raise ConvertError(f'{existing[0]} exists, and was not made from {job.path} with these settings: choose '
                               'another --out, or convert again with --force')
        finished = _result_from_record(known.get('outcome'))
        if finished is not None and known.get('identity') == identity and all(
                (output.folder / name).exists() for name in finished.files):
            return replace(finished, written=0, frames=0)
    _write_record(record, {'identity': identity})
    return None


def _write(episode: EpisodeStream, job: ConversionJob, output: OutputConfig, so_far: _Counts) -> None:
    path = output.episode_file(job.name, episode.index)
    count = 0
    try:
        with EpisodeWriter(path, episode.facts, storage=output.storage, jpeg_quality=output.jpeg_quality) as writer:
            for frame in episode.frames():
                writer.append_frame(frame)
                count += 1
            writer.update_facts(episode.facts)
    except SkipEpisodeError as refused:
        so_far.refused.append(SkippedEpisode(index=episode.index, kind=refused.kind.value, detail=refused.detail))
    except EpisodeError as error:
        so_far.refused.append(SkippedEpisode(index=episode.index, kind='invalid', detail=f'{job.path}: {error}'))
    else:
        so_far.written += 1
        so_far.frames += count


def _identity(job: ConversionJob, output: OutputConfig) -> str:
    return f'{job.identity()} {output.storage.value} {output.jpeg_quality}'


def _error_text(problem: OSError, job: ConversionJob, output: OutputConfig, full: bool) -> str:
    name = problem.filename or output.folder
    if full:
        return (f'{job.path}: cannot write {name}: the disk is full; complete episodes are kept. Free disk space and '
                'run the same command again')
    return f'{job.path}: {name}: {problem.strerror or problem}'


def _read_record(path: Path) -> dict[str, Any]:
    """Return the record of a job; empty if it is missing or unreadable."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_record(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content, sort_keys=True, indent=1) + '\n')


def _result_from_record(fields: Any) -> ConversionResult | None:
    """Return the result from the fields of ``asdict``; None if they are of another version of this program."""
    if not isinstance(fields, dict):
        return None
    try:
        report = fields['report']
        lines = tuple(StreamStats(**line) for line in report['streams'])
        return ConversionResult(**{
            **fields, 'files': tuple(fields['files']),
            'refused': tuple(SkippedEpisode(**one) for one in fields['refused']),
            'report': ConversionReport(**{**report, 'streams': lines, 'notes': tuple(report['notes'])})})
    except (TypeError, KeyError):
        return None


def _remove(file: Path) -> None:
    for part in (*file.parent.glob(f'{file.stem}.*.mp4'), file):
        part.unlink(missing_ok=True)
