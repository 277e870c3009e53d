"""Output folders of bulk work, each of which belongs to one configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apt_policy.core.errors import UserError
from apt_training.config_check import ConfigChangedError, check_config_unchanged

CONFIG_FILE = 'generation.json'
"""Name of the file with the configuration."""


class OutputFolderError(UserError, ValueError):
    """Error of an output folder that belongs to another configuration or cannot be used."""


def prepare_output_folder(folder: Path, config: Mapping[str, Any]) -> None:
    """Create an output folder and write its configuration, or check that it has the same one.

    Args:
        folder: the folder, which may exist.
        config: configuration as plain JSON types.

    Raises:
        OutputFolderError: it belongs to another configuration, has other files, or cannot be created.
    """
    config_file = folder / CONFIG_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not config_file.exists() and any(folder.glob('[!.]*')):
            raise OutputFolderError(f'{folder} is not empty and has no {CONFIG_FILE}: choose an empty or a new folder')
        check_config_unchanged(config_file, config)
    except ConfigChangedError as error:
        raise OutputFolderError(str(error)) from error
    except OSError as error:
        raise OutputFolderError(f'cannot write to {folder}: {error.strerror}') from error
