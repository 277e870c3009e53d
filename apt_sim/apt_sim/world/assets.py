"""Where the robot's meshes lie.

They come with the ``gym-aloha`` package, which is never imported: only its files are wanted,
not the dependencies of its environments.
"""

import importlib.util
from pathlib import Path

from apt_policy.core.errors import UserError


class AssetsMissing(UserError, FileNotFoundError):
    """The robot's description or meshes are not installed; the message says how to get them."""


_MODEL = 'bimanual_viperx_transfer_cube.xml'


def bimanual_viperx() -> Path:
    """The MJCF file of the two ViperX arms on their table.

    Raises:
        AssetsMissing: ``gym-aloha`` is not installed, or not whole.
    """
    package = importlib.util.find_spec('gym_aloha')
    folders = list(package.submodule_search_locations or ()) if package else []
    if not folders:
        raise AssetsMissing('the simulator needs the robot meshes of gym-aloha, which is not installed; '
                            'run: pip install --no-deps gym-aloha')
    model = Path(folders[0]) / 'assets' / _MODEL
    if not model.is_file():
        raise AssetsMissing(f'{model} does not exist: gym-aloha is installed but incomplete; '
                            'run: pip install --no-deps --force-reinstall gym-aloha')
    return model
