"""The command line of ``apt-record``."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from apt_policy.core.shipped import shipped_contract
from apt_recorder.bag_writer import BagConfig
from apt_recorder.storage import BagStorage, Compression

_MIB = 2**20
_EXAMPLES = """
keys: space begins and ends an episode, d discards it, q ends the recording

  apt-record out/bags/monday                        every stream of the shipped ALOHA contract
  apt-record out/bags/monday --without cam_low      one camera is broken, and that is known
  apt-record out/bags/monday --episode-per-prompt   each new instruction is an episode
  apt-record --recover out/bags/monday              make a bag of what a killed recording left
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user wants."""

    folder: Path
    recover: bool
    contract: Path
    bag: BagConfig
    queue_bytes: int
    duration_s: float
    """0: until stopped."""
    episodes: int
    """Likewise."""
    wait_s: float
    min_rate: float
    without: tuple[str, ...]
    stamp_on_receipt: tuple[str, ...]
    episode_per_prompt: bool
    ros: tuple[str, ...]
    """Arguments for rclpy."""


def parse(words: Sequence[str]) -> Options:
    """Read the command line; ends the program with status 2 where it cannot be used."""
    words, ros = _apart(words)
    parser = _parser()
    given = parser.parse_args(words)
    try:
        bag = BagConfig(
            storage=BagStorage(given.storage), compression=Compression(given.compress),
            max_bytes=round(given.max_size * _MIB), max_ns=round(given.split * 1e9),
            min_free_bytes=round(given.min_free * _MIB))
        contract = given.contract or shipped_contract('aloha.yaml')
    except ValueError as error:
        parser.error(str(error))
    for name in ('max_size', 'split', 'min_free', 'duration', 'episodes', 'wait'):
        if getattr(given, name) < 0:
            parser.error(f'--{name.replace("_", "-")} is {getattr(given, name):g}, expected 0 or more')
    if given.recover and given.bag is None:
        parser.error('--recover needs the folder of the bag')
    return Options(
        folder=given.bag or Path(f'apt_{time.strftime("%Y_%m_%d-%H_%M_%S")}'), recover=given.recover,
        contract=contract, bag=bag,
        queue_bytes=round(given.queue * _MIB), duration_s=given.duration, episodes=given.episodes,
        wait_s=given.wait, min_rate=given.min_rate, without=tuple(given.without),
        stamp_on_receipt=tuple(given.stamp_on_receipt), episode_per_prompt=given.episode_per_prompt, ros=ros)


def _apart(words: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """The program's own words, and those from ``--ros-args`` on."""
    place = words.index('--ros-args') if '--ros-args' in words else len(words)
    return list(words[:place]), tuple(words[place:])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='apt-record', description='Record every stream of a robot into a rosbag2 bag.', epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('bag', nargs='?', type=Path, help='folder to make; named after the time if left out')
    parser.add_argument('--contract', type=Path, help='robot contract; the shipped aloha.yaml if left out')
    parser.add_argument('--storage', choices=[one.value for one in BagStorage], default='mcap')
    parser.add_argument('--compress', choices=[one.value for one in Compression], default='none',
                        help='zstd on chunks of about 1 MiB (mcap), or on each message (default: %(default)s)')
    parser.add_argument('--max-size', type=float, default=0.0, metavar='MIB', help='begin a new file beyond this size')
    parser.add_argument('--split', type=float, default=0.0, metavar='S', help='begin a new file after this time')
    parser.add_argument('--duration', type=float, default=0.0, metavar='S', help='end after this time on the robot')
    parser.add_argument('--episodes', type=int, default=0, metavar='N', help='end after so many episodes that count')
    parser.add_argument('--episode-per-prompt', action='store_true', help='each new instruction begins an episode')
    parser.add_argument('--without', nargs='+', default=[], metavar='STREAM',
                        help='leave out a stream, a camera or an arm, by its name')
    parser.add_argument('--stamp-on-receipt', nargs='+', default=[], metavar='NAME',
                        help='cameras and arms whose stamps are wrong: the age of their messages is not checked')
    parser.add_argument('--min-rate', type=float, default=0.8, metavar='SHARE',
                        help='of the contract\'s rate, below which a stream is too slow (default: %(default)s)')
    parser.add_argument('--wait', type=float, default=10.0, metavar='S',
                        help='how long streams may take to appear before it gives up (default: %(default)s)')
    parser.add_argument('--min-free', type=float, default=64.0, metavar='MIB',
                        help='end while the disk still has this much room (default: %(default)s)')
    parser.add_argument('--queue', type=float, default=512.0, metavar='MIB',
                        help='memory for messages that wait for the disk (default: %(default)s)')
    parser.add_argument('--recover', action='store_true', help='make a killed recording readable, and end')
    return parser
