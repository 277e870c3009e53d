"""Small datasets of episodes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apt_training.data.dataset import EpisodeDataset
from apt_training.data.dataset_spec import DatasetSpec
from apt_training.data.sample import Window

WINDOW = Window(image_size=32, horizon=6)


@pytest.fixture
def make_dataset(tmp_path: Path, write_episode: Callable[..., Any]) -> Callable[..., EpisodeDataset]:
    """A dataset of ``count`` small episodes in a folder of its own; the rest goes to EpisodeDataset."""
    def make(name: str = 'small', count: int = 3, *, spec: DatasetSpec | None = None,
             written: dict[str, Any] | None = None, **options: Any) -> EpisodeDataset:
        folder = tmp_path / name
        files = [folder / f'{index}.h5' for index in range(count)]
        for index, file in enumerate(files):
            write_episode(file, **{'seed': index, 'count': 12, **(written or {})})
        return EpisodeDataset(files, spec or DatasetSpec(name=name), root=folder,
                              **{'window': WINDOW, **options})
    return make
