"""Source ``apt-convert --from rosbag``: flags, and conversion jobs with unique names."""

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from apt_policy.core.contract import RobotContract
from apt_training.convert.rosbag.bag_reader import bag_files
from apt_training.convert.rosbag.config import EndEffector, LabelMode, RosbagConversionConfig, SegmentationMode
from apt_training.convert.rosbag.job import RosbagJob
from apt_training.convert.rosbag.reader_backends import ReaderChoice, available_backends
from apt_training.convert.rosbag.topic_routes import TF
from apt_training.convert.source import ConvertError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this source."""
    group = parser.add_argument_group('bags (--from rosbag)')
    group.add_argument('--split-by', choices=[one.value for one in SegmentationMode],
                       default=SegmentationMode.AUTO.value,
                       help='what begins an episode; auto: marks if there are any, else new prompts, else the bag')
    group.add_argument('--labels', choices=[one.value for one in LabelMode], default=LabelMode.AUTO.value,
                       help='what is learned; auto: targets, else joint commands, else later poses')
    group.add_argument('--ee-from', choices=[one.value for one in EndEffector], default=EndEffector.AUTO.value,
                       help='where measured poses come from; auto: TF, and joints for an arm that it lacks')
    group.add_argument('--reference', metavar='STREAM',
                       help='camera or arm of whose every message a frame is made; default: one per contract step')
    group.add_argument('--receive', nargs='+', default=[], metavar='STREAM',
                       help='cameras, arms or tf whose messages count from their arrival, not from their stamps')
    group.add_argument('--cameras', nargs='+', metavar='CAMERA', help='cameras to use; default: all of the contract')
    group.add_argument('--max-drops', type=float, default=0.2, metavar='SHARE',
                       help='an episode that lacks more of its frames is left out; default %(default)s')
    group.add_argument('--namespace', default='', help="the robot's namespace in the bags")
    group.add_argument('--reader', choices=[one.value for one in ReaderChoice], default=ReaderChoice.AUTO.value,
                       help='what reads the files; auto: rosbag2_py of a sourced ROS distribution, else rosbags')
    group.add_argument('--prompt', default='', metavar='TEXT', help='for episodes during which none was said')


def list_jobs(arguments: argparse.Namespace, contract: RobotContract) -> Sequence[RosbagJob]:
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


def _config(arguments: argparse.Namespace, contract: RobotContract) -> RosbagConversionConfig:
    streams = (*contract.cameras, *contract.arms)
    for flag, names, known in (('--receive', arguments.receive, (*streams, TF)),
                               ('--cameras', arguments.cameras or [], tuple(contract.cameras)),
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
            receive=tuple(sorted(set(arguments.receive))),
            cameras=None if arguments.cameras is None else tuple(arguments.cameras), max_drops=arguments.max_drops,
            namespace=arguments.namespace.strip('/'), prompt=arguments.prompt)
    except ValueError as error:
        raise ConvertError(str(error)) from error
