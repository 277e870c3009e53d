"""A folder that is gone on with belongs to what it was begun with: a note in it says what that was."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apt_policy.core.atomic import write_text
from apt_policy.core.errors import UserError


class ClaimError(UserError, ValueError):
    """A folder that was begun with something else; the message says what differs."""


def keep_to(note: Path, wanted: Mapping[str, Any]) -> None:
    """Write ``note``, or compare what it says.

    Args:
        note: a file; its folder is there.
        wanted: plain JSON.

    Raises:
        ClaimError: it says otherwise, or cannot be read.
        OSError: it cannot be written.
    """
    if note.exists():
        _compare(note, wanted)
        return
    # Of several processes each writes the same.
    write_text(note, json.dumps(wanted, indent=2, sort_keys=True) + '\n', shared=True)


def _compare(note: Path, wanted: Mapping[str, Any]) -> None:
    try:
        found = json.loads(note.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ClaimError(f'{note} is not JSON ({error}); choose another folder') from error
    differing = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    if differing:
        key = differing[0]
        raise ClaimError(f'{note.parent} was made with {key} = {found.get(key)!r}, these settings have '
                         f'{wanted.get(key)!r}; choose another folder, or the same settings to go on')
