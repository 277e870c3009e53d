"""Scripted demonstrations, recorded: the simulated robot, its demonstrator and ``apt-record`` at once.

``python -m apt_demos.tutorial.recording out/bags/training --episodes 10``. It only starts and ends the
programs; each of them can be started by hand in a terminal of its own.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Event

from ament_index_python.packages import get_package_share_directory
from domain_coordinator import domain_id

from apt_bringup import graph
from apt_bringup.session import Session
from apt_bringup.supervise import ChildProcess, StopTimeouts
from apt_demos.tutorial.arguments import RecordingArguments
from apt_policy.cli import parse
from apt_policy.console import run_program
from apt_policy.core.stop import stop_requests

_POLL_PERIOD_S = 0.2
# A busy machine delivers messages late, which does no harm in simulation.
_RECORDER = ('--wait', '60', '--min-rate', '0.5')


def main(argv: Sequence[str] | None = None) -> int:
    """Record; an unfinished bag of an earlier run in the same folder is removed.

    Returns:
        0 when all episodes are in the bag, 130 on Ctrl-C, 2 for arguments that cannot be used, else 1.
    """
    return run_program('recording', partial(_run, argv))


def _run(argv: Sequence[str] | None) -> int:
    given = parse(RecordingArguments, argv, program='recording')
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    share = Path(get_package_share_directory('apt_bringup'))
    with domain_id() as domain, stop_requests() as stop:
        os.environ['ROS_DOMAIN_ID'] = str(domain)
        session = Session(graph.demonstration(_launch_arguments(given), share))
        shutil.rmtree(given.bag, ignore_errors=True)
        with session:
            return _record(session, given, stop)


def _launch_arguments(given: RecordingArguments) -> dict[str, str]:
    width, _, height = given.size.partition('x')
    return {'contract': given.contract, 'episodes': str(given.episodes), 'seed': str(given.seed),
            'skills': given.skills, 'speed': f'{given.speed:g}', 'await_recorder': 'true', 'width': width,
            'height': height}


def _record(session: Session, given: RecordingArguments, stop: Event) -> int:
    contract = ('--contract', given.contract) if given.contract else ()
    command = [sys.executable, '-m', 'apt_recorder.main', str(given.bag), *contract,
               '--episodes', str(given.episodes), *_RECORDER]
    recorder = ChildProcess('apt-record', command, os.environ, colour=3)
    try:
        while recorder.exit_status is None and not stop.wait(_POLL_PERIOD_S):
            # The demonstrator ends with status 0 shortly before the recorder does.
            failed = {name: status for name, status in session.ended.items() if status != 0}
            if failed:
                sys.stderr.write(f'recording: {", ".join(failed)} ended unexpectedly; its last lines are above\n')
                return 1
    finally:
        status = recorder.stop(StopTimeouts())
    return 130 if stop.is_set() else min(abs(status), 1)


if __name__ == '__main__':
    sys.exit(main())
