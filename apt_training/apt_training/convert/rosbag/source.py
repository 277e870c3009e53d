"""Source ``apt-convert --from rosbag``: flags, and conversion jobs with unique names."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from apt_policy.core.contract import RobotContract
from apt_training.convert.arguments import ConvertArguments
from apt_training.convert.rosbag.bag_reader import bag_files
from apt_training.convert.rosbag.config import EndEffector, LabelMode, RosbagConversionConfig, SegmentationMode
from apt_training.convert.rosbag.job import RosbagJob
from apt_training.convert.rosbag.reader_backends import ReaderChoice, available_backends
from apt_training.convert.rosbag.topic_routes import TF
from apt_training.convert.source import ConvertError


def list_jobs(arguments: ConvertArguments, contract: RobotContract) -> Sequence[RosbagJob]:
    """List one job per bag; a folder of bags stands for all of them.

    Raises:
        ConvertError: an input is no bag, or a flag does not fit the contract.
    """
    config, reader = _config(arguments, contract), ReaderChoice(arguments.reader)
    available_backends(reader)
    paths = [bag for path in map(Path, arguments.inputs) for bag in _bags(path)]
    twice = [str(path) for path, count in Counter(path.resolve() for path in paths).items() if count > 1]
    if twice:
        raise ConvertError(f'{twice[0]} is given twice: give each bag once')
    return [RosbagJob(name=name, path=str(path), contract=contract, config=config, reader=reader)
            for name, path in zip(job_names(paths), paths, strict=True)]


def job_names(paths: Sequence[Path]) -> list[str]:
    """Return unique names for files: those of the bags, with as many parent folders as needed."""
    parts = [path.resolve().parts for path in paths]
    depth = [1] * len(paths)

    def name(index: int) -> str:
        words = parts[index][-depth[index]:]
        stem = re.sub(r'(\.mcap|\.db3)?(\.zstd)?$', '', words[-1])
        return re.sub(r'[^A-Za-z0-9._-]+', '-', '-'.join((*words[:-1], stem)))

    while True:
        names = [name(index) for index in range(len(paths))]
        clashes = {one for one, count in Counter(names).items() if count > 1}
        longer = [index for index, one in enumerate(names) if one in clashes and depth[index] < len(parts[index])]
        if not longer:
            return [f'{one}-{index}' if one in clashes else one for index, one in enumerate(names)]
        for index in longer:
            depth[index] += 1


def _bags(path: Path) -> list[Path]:
    """Return the path itself, or the bags in a folder that is no bag."""
    if path.is_dir():
        try:
            bag_files(path)
        except ConvertError:
            inside = sorted(child for child in path.iterdir() if child.is_dir() and _is_bag(child))
            if inside:
                return inside
            raise
    else:
        bag_files(path)
    return [path]


def _is_bag(path: Path) -> bool:
    try:
        return bool(bag_files(path))
    except ConvertError:
        return False


def _config(arguments: ConvertArguments, contract: RobotContract) -> RosbagConversionConfig:
    streams = (*contract.cameras, *contract.arms)
    for flag, names, known in (('--stamp-on-receipt', arguments.stamp_on_receipt, (*streams, TF)),
                               ('--cameras', arguments.cameras or (), tuple(contract.cameras)),
                               ('--reference', [arguments.reference] if arguments.reference else [], streams)):
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ConvertError(f'{flag} has {", ".join(map(repr, unknown))}, expected names of the contract: '
                               f'{", ".join(known)}')
    if arguments.cameras and arguments.reference in contract.cameras and arguments.reference not in arguments.cameras:
        raise ConvertError(f'--reference {arguments.reference} is not one of --cameras: add it to them')
    for name, arm in contract.arms.items():
        if arguments.cameras and not set(arm.reference_cameras) & set(arguments.cameras):
            raise ConvertError(f'--cameras {" ".join(arguments.cameras)} has no reference camera of arm {name!r}: '
                               f'add one of {", ".join(arm.reference_cameras)}')
    try:
        return RosbagConversionConfig(
            split=SegmentationMode(arguments.split_by), labels=LabelMode(arguments.labels),
            end_effector=EndEffector(arguments.ee_from), reference=arguments.reference,
            receive=tuple(sorted(set(arguments.stamp_on_receipt))),
            cameras=arguments.cameras, max_drops=arguments.max_drops,
            namespace=arguments.namespace.strip('/'), prompt=arguments.prompt)
    except ValueError as error:
        raise ConvertError(str(error)) from error
