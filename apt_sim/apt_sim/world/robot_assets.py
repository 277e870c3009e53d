"""Robot description of gym-aloha: path of its MJCF file, and coarser meshes for drawing.

The package ``gym-aloha`` is never imported: only its files are needed, not the dependencies of its environments.
"""

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.errors import UserError


class MissingAssetsError(UserError, FileNotFoundError):
    """Robot description or meshes that are not installed; the message says how to install them."""


_MODEL = 'bimanual_viperx_transfer_cube.xml'


def bimanual_viperx() -> Path:
    """Return the path of the MJCF file of the two ViperX arms on their table.

    Raises:
        MissingAssetsError: ``gym-aloha`` is not installed, or incomplete.
    """
    package = importlib.util.find_spec('gym_aloha')
    folders = list(package.submodule_search_locations or ()) if package else []
    if not folders:
        raise MissingAssetsError('the simulator needs the robot meshes of gym-aloha, which is not installed; '
                                 'run: pip install --no-deps gym-aloha')
    model = Path(folders[0]) / 'assets' / _MODEL
    if not model.is_file():
        raise MissingAssetsError(f'{model} does not exist: gym-aloha is installed but incomplete; '
                                 'run: pip install --no-deps --force-reinstall gym-aloha')
    return model


def coarsen(vertices: NDArray[np.float64], faces: NDArray[np.int64],
            cell: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Merge the vertices within each cell of a cubic grid and drop the faces that collapse.

    Software rendering pays for every vertex.

    Args:
        vertices: (V, 3) [m].
        faces: (F, 3) vertex indices.
        cell: side of the grid's cells [m]; no vertex moves farther than a cell's diagonal.

    Returns:
        Vertices (V', 3) [m] and faces (F', 3) of the coarser mesh.
    """
    _, merged = np.unique(np.floor(vertices / cell).astype(np.int64), axis=0, return_inverse=True)
    merged = merged.reshape(-1)
    count = np.bincount(merged)
    centres = np.stack([np.bincount(merged, vertices[:, axis]) / count for axis in range(3)], axis=1)
    corners = merged[faces]
    flat = (corners == np.roll(corners, 1, axis=1)).any(axis=1)
    kept = np.unique(_canonical(corners[~flat]), axis=0)
    used, renumbered = np.unique(kept, return_inverse=True)
    return centres[used], renumbered.reshape(kept.shape)


def _canonical(faces: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rotate each face to begin at its lowest vertex index, so that duplicates compare equal."""
    first = np.argmin(faces, axis=1)[:, None]
    return np.take_along_axis(faces, (first + np.arange(3)) % 3, axis=1)
