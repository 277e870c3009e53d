"""Coarser triangles for drawing: software rendering pays for every vertex.

Pure numbers; what a mesh is a part of is not known here.
"""

import numpy as np
from numpy.typing import NDArray


def coarsen(vertices: NDArray[np.float64], faces: NDArray[np.int64],
            cell: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Merge the vertices within each cube of a grid; faces that collapse disappear.

    Args:
        vertices: (V, 3) [m].
        faces: (F, 3) indices.
        cell: side of the grid's cubes [m]; no vertex moves farther than its diagonal.

    Returns:
        Fewer vertices and faces, of the same shapes.
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
    """Each face begun at its lowest corner, orientation kept, so that duplicates are equal."""
    first = np.argmin(faces, axis=1)[:, None]
    return np.take_along_axis(faces, (first + np.arange(3)) % 3, axis=1)
