"""Check that a folder is continued with the configuration that it was begun with, which a JSON file in it holds."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apt_policy.core.atomic import write_text
from apt_policy.core.errors import UserError


class ConfigChangedError(UserError, ValueError):
    """Error of a folder that was begun with another configuration."""


def check_config_unchanged(file: Path, config: Mapping[str, Any]) -> None:
    """Write a configuration to ``file``, or compare it with the one in ``file``.

    Args:
        file: JSON file; its folder must exist.
        config: configuration as plain JSON types.

    Raises:
        ConfigChangedError: the configuration differs, or the file is not JSON.
        OSError: it cannot be written.
    """
    if file.exists():
        _compare(file, config)
        return
    # Several processes may write at once, each the same text.
    write_text(file, json.dumps(config, indent=2, sort_keys=True) + '\n', shared=True)


def _compare(file: Path, config: Mapping[str, Any]) -> None:
    try:
        found = json.loads(file.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigChangedError(f'{file} is not JSON ({error}): choose another folder') from error
    differing = sorted(key for key in {*found, *config} if found.get(key) != config.get(key))
    if differing:
        key = differing[0]
        raise ConfigChangedError(f'{file.parent} was made with {key} = {found.get(key)!r}, these settings have '
                                 f'{config.get(key)!r}; choose another folder, or continue with the same settings')
