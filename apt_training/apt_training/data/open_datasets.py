"""Opening of datasets by name or folder, and their combination into a mixture.

All files are found and checked before training starts.
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
from apt_training.data.dataset_spec import DatasetSpec, VideoRoot, spec_from_contract
from apt_training.data.locations import Location, LocationError, Locations, location_variable
from apt_training.data.mixture import BadFrameHandling, Mixture, MixtureComponent
from apt_training.data.published import PUBLISHED
from apt_training.data.sample import Window
from apt_training.episodes.episode import EpisodeError
from apt_training.episodes.files import SUFFIXES_TEXT, episode_files

log = logging.getLogger(__name__)

_LISTED = 20
"""Number of files that a message lists."""


class BadFileHandling(Enum):
    """Reaction to episodes that cannot be used when a dataset is opened."""

    REFUSE = 'refuse'
    """Raise one error that names all of them."""
    SKIP = 'skip'
    """Skip them, and log a warning that counts and names them."""
    TRUST = 'trust'
    """Open the dataset without reading its files; damaged episodes show up in training."""


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Dataset of a mixture as the command line names it, with its weight."""

    name: str
    """Name of a published dataset or of an entry in the locations file, a folder, or an episode file."""
    weight: float = 1.0
    """Weight in the mixture, above 0."""


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Configuration of sampling for training."""

    augmentation: Augmentation = NO_AUGMENTATION
    """Image augmentation."""
    shuffle_cameras: bool = True
    """True to shuffle the order of cameras."""
    bad_files: BadFileHandling = BadFileHandling.REFUSE
    """Reaction to episodes that cannot be used."""
    bad_frames: BadFrameHandling = BadFrameHandling.REPLACE
    """Reaction to frames that cannot be read."""


def open_mixture(sources: Sequence[DataSource], *, seed: int, contract: RobotContract | None = None,
                 window: Window | None = None, locations: Locations | None = None,
                 sampling: SamplingConfig | None = None, epoch_draws: int | None = None) -> Mixture:
    """Open every dataset and combine them.

    Args:
        sources: at least one dataset.
        seed: seed of all draws.
        contract: contract of the robot whose episodes are in folders; None: accept any robot.
        window: size of the samples; None: the contract's, else 256 px and 32 future states.
        locations: locations of named datasets; None: the shipped file.
        sampling: configuration of sampling; None: cameras shuffled, no augmentation, bad files refused.
        epoch_draws: draws per epoch; None: one per episode.

    Raises:
        LocationError: a dataset is not on this machine.
        EpisodeError: files cannot be used.
        ValueError: there are no sources, or a weight is not positive.
    """
    sampling = sampling or SamplingConfig()
    window = window or window_from_contract(contract)
    found = [(source, *_find(source.name, contract, locations)) for source in sources]
    twice = {name for name, count in Counter(spec.name for _, spec, _ in found).items() if count > 1}
    components = []
    for source, spec, location in found:
        if spec.name in twice:
            raise ValueError(f'two datasets are named {spec.name} ({source.name}), and samples are named after their '
                             'dataset; rename a folder, or give one a name in the locations file')
        components.append(MixtureComponent(
            dataset=open_dataset(spec, location, window=window, sampling=sampling), weight=source.weight))
    return Mixture(components, seed=seed, epoch_draws=epoch_draws, bad_frames=sampling.bad_frames)


def open_dataset(spec: DatasetSpec, location: Location, *, window: Window,
                 sampling: SamplingConfig | None = None) -> EpisodeDataset:
    """Open one dataset and check its files.

    Args:
        spec: description of the dataset.
        location: location of its files.
        window: size of the samples.
        sampling: configuration of sampling; None: the default.

    Raises:
        LocationError: the folder holds no episode.
        DatasetMismatchError: files differ from the spec; the message tells what they have and what is expected.
        EpisodeError: files cannot be used; the message names them. If bad files are skipped, only if none can be used.
    """
    sampling = sampling or SamplingConfig()
    single = location.folder.is_file()
    root = location.folder.parent if single else location.folder
    files = [location.folder] if single else [path for path in episode_files(root, spec.files)
                                              if path.name not in spec.exclude]
    if not files:
        raise LocationError(f'dataset {spec.name}: no episode files ({spec.files}, {SUFFIXES_TEXT}) below {root}')
    videos = location.videos or {
        VideoRoot.BESIDE: None, VideoRoot.FOLDER: root, VideoRoot.MIRROR: root.with_name(f'{root.name}_raw'),
    }[spec.videos]

    def dataset(files: Sequence[Path]) -> EpisodeDataset:
        return EpisodeDataset(files, spec, window=window, augmentation=sampling.augmentation,
                              shuffle_cameras=sampling.shuffle_cameras, root=root, videos=videos)

    opened = dataset(files)
    if sampling.bad_files is BadFileHandling.TRUST:
        return opened
    bad = _bad_files(opened)
    if not bad:
        return opened
    if sampling.bad_files is BadFileHandling.REFUSE or len(bad) == len(files):
        raise _error_for(spec, len(files), bad, root)
    log.warning('%s\nThey are skipped.', _list_errors(spec.name, len(files), list(bad.values())))
    return dataset([file for file in files if file not in bad])


def window_from_contract(contract: RobotContract | None) -> Window:
    """Return the window of a contract; the published one without a contract."""
    if contract is None:
        return Window()
    return Window(image_size=contract.image_size, horizon=contract.horizon, history=contract.history)


def parse_data_source(text: str) -> DataSource:
    """Parse NAME or NAME=WEIGHT, such as ``Droid``, ``Droid=10`` or ``out/episodes=0.5``.

    Raises:
        ValueError: the weight is not a number above 0.
    """
    name, separator, weight = text.rpartition('=')
    if not separator:
        return DataSource(name=text)
    try:
        value = float(weight)
    except ValueError:
        value = 0.0
    if not value > 0 or not name:
        raise ValueError(f'{text!r} is not a dataset; expected NAME, or NAME=WEIGHT with a weight above 0')
    return DataSource(name=name, weight=value)


def _find(name: str, contract: RobotContract | None, locations: Locations | None) -> tuple[DatasetSpec, Location]:
    if Path(name).exists() and name not in PUBLISHED:
        path = Path(name).resolve()
        return spec_from_contract(path.stem if path.is_file() else path.name, contract), Location(folder=path)
    locations = Locations() if locations is None else locations
    if name in PUBLISHED:
        return PUBLISHED[name], locations.find(name)
    try:
        return spec_from_contract(name, contract), locations.find(name)
    except LocationError as error:
        if name in locations.names:
            raise
        raise LocationError(f'{name!r} is neither a folder nor a dataset; published datasets are '
                            f'{", ".join(PUBLISHED)}; add a dataset of your own to {locations.file}, or set '
                            f'{location_variable(name)}') from error


def _bad_files(dataset: EpisodeDataset) -> dict[Path, EpisodeError]:
    bad: dict[Path, EpisodeError] = {}
    for index, file in enumerate(dataset.files):
        try:
            dataset.check_episode(index)
        except EpisodeError as error:
            bad[file] = error
    return bad


def _error_for(spec: DatasetSpec, count: int, bad: Mapping[Path, EpisodeError], root: Path) -> EpisodeError:
    """Return one error for all bad files of a dataset, damaged ones apart from those that do not fit the spec."""
    unfit = {file: error for file, error in bad.items() if isinstance(error, DatasetMismatchError)}
    damaged = [error for file, error in bad.items() if file not in unfit]
    texts = []
    if damaged:
        texts.append(f'{_list_errors(spec.name, count, damaged)}\nRepair or remove them, or skip bad files.')
    if not unfit:
        return EpisodeError(texts[0])
    texts.append(_mismatch(spec, count, unfit, root))
    return DatasetMismatchError('\n'.join(texts), next(iter(unfit.values())).facts)


def _mismatch(spec: DatasetSpec, count: int, unfit: Mapping[Path, DatasetMismatchError], root: Path) -> str:
    alike: dict[str, list[Path]] = {}
    for file, error in unfit.items():
        alike.setdefault(_describe(error.facts.arms, error.facts.cameras), []).append(file)
    has = '\n'.join(f'  {len(files)} have {names}, for example {files[0]}'
                    for names, files in list(alike.items())[:_LISTED])
    wanted = _describe(spec.arms, spec.cameras)
    if spec.contract:
        expected, fix = f'the contract of robot {spec.contract}', (
            'Give the contract that they were converted with, or convert the recordings again with this one.')
    else:
        expected, fix = f'the spec of {spec.name}', f'Check that {root} is the folder of {spec.name}.'
    return (f'dataset {spec.name}: {len(unfit)} of {count} episodes do not fit {expected}:\n{has}\n'
            f'  expected: {wanted}\n{fix}')


def _describe(arms: Sequence[str], cameras: Sequence[str]) -> str:
    return f'arms {", ".join(arms) or "of any name"}; cameras {", ".join(cameras) or "of any name"}'


def _list_errors(name: str, count: int, errors: Sequence[EpisodeError]) -> str:
    listed = '\n'.join(f'  {error}' for error in errors[:_LISTED])
    rest = f'\n  and {len(errors) - _LISTED} more' if len(errors) > _LISTED else ''
    return f'dataset {name}: {len(errors)} of {count} episodes cannot be used:\n{listed}{rest}'
