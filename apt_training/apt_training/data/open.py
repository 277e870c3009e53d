"""From names and folders to a mixture that can be drawn from.

Finds files, checks all of them before anything is trained on, and joins the datasets.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from apt_policy.core.contract import RobotContract
from apt_training.data.augment import NO_AUGMENTATION, Augmentation
from apt_training.data.dataset import DatasetMismatchError, EpisodeDataset
from apt_training.data.declare import Declaration, Videos, declaration_of
from apt_training.data.locations import Location, LocationError, Locations, variable_of
from apt_training.data.mixture import BadFrames, Mixture, Part
from apt_training.data.published import PUBLISHED
from apt_training.data.sample import Window
from apt_training.episodes.episode import EpisodeError
from apt_training.episodes.files import SUFFIXES_TEXT, episode_files

log = logging.getLogger(__name__)

_NAMED = 20
"""Bad files that a message names."""


class BadFiles(Enum):
    """What is done about episodes that cannot be used, when a dataset is opened."""

    REFUSE = 'refuse'
    """All of them are named in one error."""
    SKIP = 'skip'
    """They are left out with a warning that counts and names them."""
    TRUST = 'trust'
    """Nothing is read beforehand; bad episodes are met in training."""


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """What a mixture is to draw from."""

    name: str
    """A published dataset, a name in the locations file, a folder, or one episode file."""
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Training:
    """How samples are drawn."""

    augmentation: Augmentation = NO_AUGMENTATION
    shuffle_cameras: bool = True
    bad_files: BadFiles = BadFiles.REFUSE
    bad_frames: BadFrames = BadFrames.REPLACE


def open_mixture(sources: Sequence[DataSource], *, seed: int, contract: RobotContract | None = None,
                 window: Window | None = None, locations: Locations | None = None,
                 training: Training | None = None, epoch_draws: int | None = None) -> Mixture:
    """Open every dataset and join them.

    Args:
        sources: at least one.
        seed: of all draws.
        contract: of the robot whose episodes lie in folders; None: take them as they are.
        window: size of the samples; None: the contract's, else 256 px and 32 future states.
        locations: where named datasets lie; None: the shipped file.
        training: how to draw; None: cameras shuffled, no augmentation, bad files refused.
        epoch_draws: draws in an epoch; None: one per episode.

    Raises:
        LocationError: a dataset that is not here.
        EpisodeError: files that cannot be used.
        ValueError: no sources, or weights that are not positive.
    """
    training = training or Training()
    window = window or window_of(contract)
    found = [(source, *_find(source.name, contract, locations)) for source in sources]
    twice = {name for name, count in Counter(declared.name for _, declared, _ in found).items() if count > 1}
    parts = []
    for source, declared, location in found:
        if declared.name in twice:
            raise ValueError(f'two datasets are called {declared.name} ({source.name}): samples are named after '
                             'their dataset; rename a folder, or give one a name in the locations file')
        parts.append(Part(dataset=open_dataset(declared, location, window=window, training=training),
                          weight=source.weight))
    return Mixture(parts, seed=seed, epoch_draws=epoch_draws, bad_frames=training.bad_frames)


def open_dataset(declaration: Declaration, location: Location, *, window: Window,
                 training: Training | None = None) -> EpisodeDataset:
    """Open one dataset and check its files.

    Raises:
        LocationError: its folder holds no episode.
        DatasetMismatchError: naming what the files have and what the declaration wants, where they differ.
        EpisodeError: naming all files that cannot be used; neither where they are skipped and some can be used.
    """
    training = training or Training()
    single = location.folder.is_file()
    root = location.folder.parent if single else location.folder
    files = [location.folder] if single else [path for path in episode_files(root, declaration.files)
                                              if path.name not in declaration.exclude]
    if not files:
        raise LocationError(f'dataset {declaration.name}: no episode files ({declaration.files}, {SUFFIXES_TEXT}) '
                            f'below {root}')
    videos = location.videos or {
        Videos.BESIDE: None, Videos.FOLDER: root, Videos.MIRROR: root.with_name(f'{root.name}_raw'),
    }[declaration.videos]

    def dataset(of: Sequence[Path]) -> EpisodeDataset:
        return EpisodeDataset(of, declaration, window=window, augmentation=training.augmentation,
                              shuffle_cameras=training.shuffle_cameras, root=root, videos=videos)

    opened = dataset(files)
    if training.bad_files is BadFiles.TRUST:
        return opened
    bad = _bad_files(opened)
    if not bad:
        return opened
    if training.bad_files is BadFiles.REFUSE or len(bad) == len(files):
        raise _refusal(declaration, len(files), bad, root)
    log.warning('%s\nthey are skipped', _account(declaration.name, len(files), list(bad.values())))
    return dataset([file for file in files if file not in bad])


def window_of(contract: RobotContract | None) -> Window:
    """What the contract says of it; the published one without a contract."""
    if contract is None:
        return Window()
    return Window(image_size=contract.image_size, horizon=contract.horizon, history=contract.history)


def parse_source(text: str) -> DataSource:
    """``Droid``, ``Droid=10``, ``out/episodes=0.5``: a name and its weight.

    Raises:
        ValueError: a weight that is not a number above 0.
    """
    name, separator, weight = text.rpartition('=')
    if not separator:
        return DataSource(name=text)
    try:
        value = float(weight)
    except ValueError:
        value = 0.0
    if not value > 0 or not name:
        raise ValueError(f'{text!r} is not NAME or NAME=WEIGHT with a weight above 0')
    return DataSource(name=name, weight=value)


def _find(name: str, contract: RobotContract | None, locations: Locations | None) -> tuple[Declaration, Location]:
    if Path(name).exists() and name not in PUBLISHED:
        path = Path(name).resolve()
        return declaration_of(path.stem if path.is_file() else path.name, contract), Location(folder=path)
    places = Locations() if locations is None else locations
    if name in PUBLISHED:
        return PUBLISHED[name], places.find(name)
    try:
        return declaration_of(name, contract), places.find(name)
    except LocationError as error:
        if name in places.names:
            raise
        raise LocationError(f'{name!r} is neither a folder nor a dataset; published ones are {", ".join(PUBLISHED)}; '
                            f'a name of your own needs a line in {places.file} or {variable_of(name)}') from error


def _bad_files(dataset: EpisodeDataset) -> dict[Path, EpisodeError]:
    bad: dict[Path, EpisodeError] = {}
    for index, file in enumerate(dataset.files):
        try:
            dataset.check(index)
        except EpisodeError as error:
            bad[file] = error
    return bad


def _refusal(declaration: Declaration, count: int, bad: Mapping[Path, EpisodeError], root: Path) -> EpisodeError:
    """Return one error for all bad files of a dataset: damaged ones want mending, whole ones another declaration."""
    unfit = {file: error for file, error in bad.items() if isinstance(error, DatasetMismatchError)}
    damaged = [error for file, error in bad.items() if file not in unfit]
    texts = []
    if damaged:
        texts.append(f'{_account(declaration.name, count, damaged)}\nmend or remove them, or let bad files be skipped')
    if not unfit:
        return EpisodeError(texts[0])
    texts.append(_mismatch(declaration, count, unfit, root))
    return DatasetMismatchError('\n'.join(texts), next(iter(unfit.values())).facts)


def _mismatch(declaration: Declaration, count: int, unfit: Mapping[Path, DatasetMismatchError], root: Path) -> str:
    alike: dict[str, list[Path]] = {}
    for file, error in unfit.items():
        alike.setdefault(_names(error.facts.arms, error.facts.cameras), []).append(file)
    has = '\n'.join(f'  {len(files)} have {names}, such as {files[0]}' for names, files in list(alike.items())[:_NAMED])
    wanted = _names(declaration.arms, declaration.cameras)
    if declaration.contract:
        what, cure = f'the contract of robot {declaration.contract}', (
            'Give the contract that they were converted with, or convert the recordings again with this one.')
    else:
        what, cure = f'the declaration of {declaration.name}', f'Check that {root} is the folder of {declaration.name}.'
    return (f'dataset {declaration.name}: {len(unfit)} of {count} episodes do not fit {what}:\n{has}\n'
            f'  expected are {wanted}\n{cure}')


def _names(arms: Sequence[str], cameras: Sequence[str]) -> str:
    return f'arms {", ".join(arms) or "of any name"}; cameras {", ".join(cameras) or "of any name"}'


def _account(name: str, count: int, errors: Sequence[EpisodeError]) -> str:
    listed = '\n'.join(f'  {error}' for error in errors[:_NAMED])
    rest = f'\n  and {len(errors) - _NAMED} more' if len(errors) > _NAMED else ''
    return f'dataset {name}: {len(errors)} of {count} episodes cannot be used:\n{listed}{rest}'
