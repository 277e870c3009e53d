"""Look-up of files that ship with the suite, from any working directory and without ROS.

The share folders of AMENT_PREFIX_PATH are searched first, then the source tree around this file.
"""

import os
from pathlib import Path

from apt_policy.core.contract import ContractError

_HOME = 'apt_bringup'
"""Package that contracts are installed with."""


def shipped_contract(name: str) -> Path:
    """Find the contract file ``name``, such as ``aloha.yaml``.

    Raises:
        ContractError: there is no such file; the message lists the searched folders.
    """
    folders = [folder / 'config' for folder in share_folders(_HOME)]
    found = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if found is None:
        looked = ', '.join(map(str, folders)) or 'AMENT_PREFIX_PATH, which is empty'
        raise ContractError(f'the contract {name} of package {_HOME} was not found in {looked}; source the '
                            "workspace's setup file, or name a contract file with --contract")
    return found


def share_folders(package: str) -> list[Path]:
    """Return the existing folders that may contain files of ``package``, in order of preference."""
    prefixes = filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep))
    shares = [Path(prefix) / 'share' / package for prefix in prefixes]
    # Modules of a build with links resolve into the sources.
    shares.append(Path(__file__).resolve().parents[3] / package)
    return [folder for folder in shares if folder.is_dir()]
