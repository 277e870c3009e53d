"""Recording of scripted demonstrations: simulated robot, demonstrator and ``apt-record`` at once.

``python -m apt_demos.tutorial.recording out/bags/training --episodes 10``. The program only starts and stops the
others; each of them can also be started in a terminal of its own.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event

from ament_index_python.packages import get_package_share_directory
from domain_coordinator import domain_id

from apt_bringup import graph
from apt_bringup.arguments import ArgumentError
from apt_bringup.session import Session, StartError
from apt_bringup.supervise import Patience, Process
from apt_policy.core.stop import stop_requests

_POLL_PERIOD_S = 0.2
# A busy machine delivers messages late, which does no harm in simulation.
_RECORDER = ('--wait', '60', '--min-rate', '0.5')


def main(words: Sequence[str] | None = None) -> int:
    """Record; a bag that an earlier run left in the same folder is removed.

    Returns:
        0 when all episodes are in the bag, 130 on Ctrl-C, 2 for arguments that cannot be used, else 1.
    """
    options = _options(words)
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    share = Path(get_package_share_directory('apt_bringup'))
    with domain_id() as domain, stop_requests() as stop:
        os.environ['ROS_DOMAIN_ID'] = str(domain)
        try:
            session = Session(graph.demonstration(_arguments(options), share))
        except (ArgumentError, StartError) as error:
            sys.stderr.write(f'recording: {error}\n')
            return 2
        shutil.rmtree(options.bag, ignore_errors=True)
        with session:
            return _record(session, options, stop)


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='recording', description=__doc__.splitlines()[0])
    parser.add_argument('bag', type=Path)
    parser.add_argument('--contract', default='', help='empty takes the shipped one of the simulated ALOHA')
    parser.add_argument('--episodes', type=int, default=10)
    parser.add_argument('--seed', type=int, default=0, help='of the first scene')
    parser.add_argument('--skills', default='pick,place')
    parser.add_argument('--speed', type=float, default=1.0, help='simulated seconds per second')
    parser.add_argument('--size', default='160x120', help='of the images [px]')
    return parser.parse_args(words)


def _arguments(options: argparse.Namespace) -> dict[str, str]:
    width, _, height = options.size.partition('x')
    return {'contract': options.contract, 'episodes': str(options.episodes), 'seed': str(options.seed),
            'skills': options.skills, 'speed': f'{options.speed:g}', 'await_recorder': 'true', 'width': width,
            'height': height}


def _record(session: Session, options: argparse.Namespace, stop: Event) -> int:
    contract = ('--contract', options.contract) if options.contract else ()
    command = [sys.executable, '-m', 'apt_recorder.main', str(options.bag), *contract,
               '--episodes', str(options.episodes), *_RECORDER]
    recorder = Process('apt-record', command, os.environ, colour=3)
    try:
        while recorder.exit_status is None and not stop.wait(_POLL_PERIOD_S):
            # The demonstrator ends with status 0 shortly before the recorder does.
            failed = {name: status for name, status in session.ended.items() if status != 0}
            if failed:
                sys.stderr.write(f'recording: {", ".join(failed)} ended unexpectedly; its last lines are above\n')
                return 1
    finally:
        status = recorder.stop(Patience())
    return 130 if stop.is_set() else min(abs(status), 1)


if __name__ == '__main__':
    sys.exit(main())
