"""Readers of the files of a LeRobot dataset: JSON, JSON lines and parquet.

Only this module imports pyarrow, and only when it is used.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apt_training.convert.source import ConvertError


class LerobotError(ConvertError):
    """Error of an unusable LeRobot dataset; the message names the file and what to do."""


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        LerobotError: the file is missing or not JSON.
    """
    return _parse(path, _read_text(path))


def read_jsonl(path: Path) -> list[Any]:
    """Read a JSON lines file, without empty lines.

    Raises:
        LerobotError: the file is missing, or a line is not JSON.
    """
    return [_parse(path, line) for line in _read_text(path).splitlines() if line.strip()]


def read_table(path: Path, columns: Sequence[str] | None, *, rows: Any = None) -> Any:
    """Read a parquet file as ``pyarrow.Table``.

    Args:
        path: the file.
        columns: names of columns; None: all but the statistics.
        rows: ``filters`` of ``pyarrow.parquet.read_table``; None: all rows.

    Raises:
        LerobotError: the file is missing or damaged, or a column is missing.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise LerobotError('LeRobot datasets need pyarrow: pip install pyarrow') from error
    try:
        present = parquet.read_schema(path).names
        wanted = [name for name in present if not name.startswith('stats/')] if columns is None else list(columns)
        missing = [name for name in wanted if name not in present]
        if missing:
            raise LerobotError(f'{path} has no column {missing[0]!r}; it has {", ".join(present)}: correct the '
                               'feature in the map (--lerobot-map), or copy the file again')
        return parquet.read_table(path, columns=wanted, filters=rows, partitioning=None)
    except FileNotFoundError as error:
        raise LerobotError(f'{path} is missing: copy the whole dataset (git lfs pull, or download it again)') from error
    except (pyarrow.ArrowException, OSError) as error:
        raise LerobotError(f'{path} cannot be read: {str(error).splitlines()[0]}: copy it again') from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise LerobotError(f'cannot read {path}: {error.strerror}; expected a complete folder with meta/, data/ '
                           'and videos/') from error
    except UnicodeDecodeError as error:
        raise LerobotError(f'{path} is not text ({error}): copy it again') from error


def _parse(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise LerobotError(f'{path} is not JSON ({error}): copy it again') from error
