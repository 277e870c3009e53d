"""Options shared by the commands of the simulation."""

import argparse
import os

from apt_policy.core.shipped import shipped_contract

CONTRACT = 'aloha_small.yaml'


def add_contract(parser: argparse.ArgumentParser) -> None:
    """Add ``--contract`` and ``--jobs``."""
    parser.add_argument('--contract', default='', help=f'the robot contract (default: {CONTRACT})')
    parser.add_argument('--jobs', type=positive, default=len(os.sched_getaffinity(0)),
                        help='processes (default: one a core)')


def add_shared(parser: argparse.ArgumentParser) -> None:
    """Add ``--contract``, ``--skills``, ``--seed`` and ``--jobs``."""
    add_contract(parser)
    parser.add_argument('--skills', default='pick,place',
                        help='separated by commas: pick, place, hand_over, push (default: pick,place)')
    parser.add_argument('--seed', type=natural, default=0, help='of all scenes (default: 0)')


def contract_path(given: str) -> str:
    """Return the given contract, or the installed default."""
    return given or str(shipped_contract(CONTRACT))


def positive(text: str) -> int:
    """Parse an integer of at least 1, for argparse."""
    return _at_least(1, text)


def natural(text: str) -> int:
    """Parse an integer of at least 0, for argparse."""
    return _at_least(0, text)


def _at_least(lowest: int, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = lowest - 1
    if number < lowest:
        raise argparse.ArgumentTypeError(f'expected a whole number of at least {lowest}, got {text!r}')
    return number
