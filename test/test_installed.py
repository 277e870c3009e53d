"""The packages as a user installs them: without links into the sources, run from elsewhere, old names included.

A robot computer has policy, control, recorder and bringup; neither training nor simulator.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from domain_coordinator import domain_id

ROOT = Path(__file__).resolve().parents[1]
SUITE = tuple(subprocess.run([ROOT / 'scripts' / 'packages'], stdout=subprocess.PIPE, text=True, check=True)
              .stdout.split())
ROBOT = tuple(name for name in SUITE if name not in ('apt_training', 'apt_sim', 'apt_demos'))
LISTS = ('PATH', 'PYTHONPATH', 'AMENT_PREFIX_PATH', 'CMAKE_PREFIX_PATH', 'COLCON_PREFIX_PATH', 'LD_LIBRARY_PATH')
MOVED = re.findall(r'^\| `(.+?)` \| `(.+?)` \|$', (ROOT / 'docs' / 'moved.md').read_text().partition('## Files')[0],
                   re.MULTILINE)
HANG_S = 120.0
# Two builds of all packages, in a setup of the first test that needs them.
pytestmark = pytest.mark.timeout(900)


def without_the_workspace(environment):
    """The environment, less what sourcing this checkout's own build of ``SUITE`` put into it."""
    def foreign(entry):
        return not any(f'/{made}/{package}' in entry for made in ('install', 'build') for package in SUITE) \
            and not entry.endswith('/install/bin')
    cleared = {name: ':'.join(filter(foreign, environment[name].split(':'))) for name in LISTS if name in environment}
    return {**environment, **cleared}


class Workspace:
    """An installed workspace, and programs run from / with it sourced."""

    def __init__(self, folder, packages):
        self._setup = folder / 'install' / 'local_setup.bash'
        self.install = folder / 'install'
        code = 'from colcon_core.command import main; raise SystemExit(main())'
        words = ['--log-base', folder / 'log', 'build', '--base-paths', ROOT, '--build-base', folder / 'build',
                 '--install-base', self.install, '--packages-select', *packages]
        subprocess.run([sys.executable, '-c', code, *map(str, words)], check=True, timeout=600, capture_output=True,
                       cwd=folder, env={**without_the_workspace(os.environ), 'PYTHONWARNINGS': 'ignore'})

    def start(self, *words, **environment):
        return subprocess.Popen(
            ['bash', '-c', f'source {self._setup} && exec "$@"', 'bash', *map(str, words)], cwd='/', text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**without_the_workspace(os.environ), 'PYTHONUNBUFFERED': '1', **environment})

    def run(self, *words, **environment):
        """Exit status and all output."""
        program = self.start(*words, **environment)
        said, _ = program.communicate(timeout=HANG_S)
        return program.returncode, said


@pytest.fixture(scope='module')
def robot(tmp_path_factory):
    return Workspace(tmp_path_factory.mktemp('robot'), ROBOT)


@pytest.fixture(scope='module')
def suite(tmp_path_factory):
    return Workspace(tmp_path_factory.mktemp('suite'), SUITE)


@pytest.fixture
def isolated():
    with domain_id() as domain:
        yield {'ROS_DOMAIN_ID': str(domain), 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}


def test_a_robot_computer_has_neither_training_nor_simulator(robot):
    code = ('from importlib.util import find_spec; '
            f'print([name for name in {SUITE} if find_spec(name) is not None])')
    assert robot.run(sys.executable, '-c', code) == (0, f'{list(ROBOT)}\n')


def test_a_robot_computer_runs_policy_and_bridge_and_ends_them(robot, isolated):
    program = robot.start(sys.executable, '-m', 'apt_bringup.run', 'aloha', 'robot:=aloha', 'drivers:=false',
                          **isolated)
    # A program that says nothing more is ended too, and so are its nodes.
    watchdog = threading.Timer(HANG_S, program.send_signal, (signal.SIGINT,))
    watchdog.start()
    said = []
    for line in program.stdout:
        said.append(line)
        if 'apt_policy is active' in line:
            break
    watchdog.cancel()
    program.send_signal(signal.SIGINT)
    rest, _ = program.communicate(timeout=HANG_S)
    assert program.returncode == 0, ''.join(said) + rest
    assert 'apt_policy is active' in said[-1]


def test_a_robot_computer_says_which_package_the_simulator_needs(robot):
    status, said = robot.run(sys.executable, '-m', 'apt_bringup.run', 'aloha', 'robot:=sim')
    assert status == 2 and 'apt_sim' in said and 'Traceback' not in said


def test_a_robot_computer_records(robot, isolated, tmp_path):
    record = robot.install / 'apt_recorder/lib/apt_recorder/apt-record'
    status, said = robot.run(record, tmp_path / 'bag', '--wait', '0.5', **isolated)
    assert status != 0 and 'cam_high' in said and 'Traceback' not in said


def test_a_program_of_a_package_that_is_not_installed_says_so(robot):
    status, said = robot.run(sys.executable, '-m', 'apt_bringup.sim.node')
    assert (status, said) == (2, 'apt_bringup.sim.node moved to the package apt_sim, which is not installed here\n')


@pytest.fixture(scope='module')
def answers(suite):
    """What each old name says and its exit status, asked for help."""
    def ask(name):
        package, _, executable = name.partition(' ')
        program = suite.install / package / 'lib' / package / executable
        return suite.run(*([program] if executable else [sys.executable, '-m', name]), '--help')
    with ThreadPoolExecutor(2) as threads:
        return dict(zip([old for old, _ in MOVED], threads.map(ask, [old for old, _ in MOVED]), strict=True))


@pytest.mark.parametrize(('old', 'new'), MOVED, ids=[old for old, _ in MOVED])
def test_an_old_name_says_the_new_one_and_works(answers, old, new):
    status, said = answers[old]
    notice, _, rest = said.partition('\n')
    assert notice == f'{old} is now {new}; the old name ends with release 0.3', said
    # Nodes know no --help: they end for want of a contract.
    assert (status, 'usage: ' in rest) == (0, True) or (status, 'contract is required' in rest) == (1, True), said


def test_the_table_of_old_names_is_whole():
    before = {f'apt_bringup {name}' for name in (
        'apt-record', 'apt-sim-data', 'apt-sim-eval', 'apt-sim-questions', 'demo', 'demonstrator', 'ik_bridge',
        'simulator')}
    assert before <= {old for old, _ in MOVED}
    stubs = {'.'.join(path.relative_to(ROOT / package).with_suffix('').parts) for package in SUITE
             for path in (ROOT / package / package).rglob('*.py')
             if 'run_moved' in path.read_text() and '__main__' in path.read_text()}
    assert stubs == {old for old, _ in MOVED if ' ' not in old}
