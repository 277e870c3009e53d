"""``scripts/env.sh``, ``scripts/count_tests`` and pytest, as they run on a user's machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHELLS = [shell for shell in ('bash', 'zsh') if shutil.which(shell)]


def environment_after(shell, *, times=1, given=()):
    script = f'set -u; cd /; {"; ".join([f". {ROOT}/scripts/env.sh"] * times)}; env -0'
    kept = ('HOME', 'ROS_DISTRO', 'AMENT_PREFIX_PATH') if 'ROS_DISTRO' in os.environ else ('HOME',)
    clean = {name: os.environ[name] for name in kept if name in os.environ}
    clean['PATH'] = os.pathsep.join(p for p in os.environ['PATH'].split(os.pathsep) if '.venv' not in p)
    result = subprocess.run([shell, '-c', script], env={**clean, **dict(given)}, capture_output=True,
                            text=True, timeout=60, check=True)
    assert result.stderr == ''
    entries = result.stdout.split('\0')
    return dict(entry.split('=', 1) for entry in entries if '=' in entry and entry[0] != '_')


@pytest.mark.parametrize('shell', SHELLS)
def test_sourcing_gives_the_workspace_and_the_images_profile(shell):
    after = environment_after(shell)
    assert str(ROOT / 'install') in after['AMENT_PREFIX_PATH']
    assert after['PATH'].split(os.pathsep)[0] == str(ROOT / '.venv' / 'bin')
    assert Path(after['FASTRTPS_DEFAULT_PROFILES_FILE']).is_file()


@pytest.mark.parametrize('shell', SHELLS)
def test_sourcing_twice_changes_nothing(shell):
    once, twice = environment_after(shell), environment_after(shell, times=2)
    assert once.items() - twice.items() == set() == twice.items() - once.items()


def test_values_of_the_user_are_kept():
    mine = {'FASTRTPS_DEFAULT_PROFILES_FILE': '/mine.xml', 'MUJOCO_GL': 'osmesa',
            'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET'}
    after = environment_after('bash', given=mine)
    assert {name: after[name] for name in mine} == mine


def count(*reports):
    return subprocess.run([ROOT / 'scripts' / 'count_tests', *reports], capture_output=True, text=True,
                          timeout=60, check=False)


def report(path, *cases):
    path.write_text('<testsuites><testsuite>' + ''.join(cases) + '</testsuite></testsuites>')
    return path


GOOD = '<testcase classname="a" name="good"/>'
BAD = '<testcase classname="a" name="bad"><failure message="no"/></testcase>'
SKIPPED = '<testcase classname="a" name="out"><skipped message="no ROS"/></testcase>'


def test_counts_are_summed_over_the_files(tmp_path):
    result = count(report(tmp_path / 'a.xml', GOOD, SKIPPED), report(tmp_path / 'b.xml', GOOD))
    assert result.stdout.splitlines()[-1] == 'total: 2 passed, 0 failed, 1 skipped'
    assert result.returncode == 0


def test_a_report_without_a_test_fails_the_run(tmp_path):
    result = count(report(tmp_path / 'a.xml', GOOD), report(tmp_path / 'b.xml'))
    assert 'b.xml: no test ran' in result.stdout and result.returncode == 1


def test_a_failed_test_is_named_and_fails_the_run(tmp_path):
    result = count(report(tmp_path / 'a.xml', GOOD, BAD))
    assert 'FAILED a::bad' in result.stdout
    assert result.stdout.splitlines()[-1] == 'total: 1 passed, 1 failed, 0 skipped'
    assert result.returncode == 1


@pytest.mark.parametrize('text', ['', '<testsuites><test'])
def test_a_run_that_was_cut_off_fails(tmp_path, text):
    (tmp_path / 'cut.xml').write_text(text)
    assert count(report(tmp_path / 'a.xml', GOOD), tmp_path / 'cut.xml').returncode == 1


def test_nothing_ran_is_a_failure():
    result = count()
    assert (result.returncode, result.stdout) == (1, 'total: 0 passed, 0 failed, 0 skipped\n')


# The signature of launch_testing, which pytest loads wherever a ROS distribution is sourced: pytest 9 knows no `path`.
HOOK_OF_LAUNCH_TESTING = '''
import pathlib
import pytest

def pytest_pycollect_makemodule(path, parent):
    return pytest.Module.from_parent(parent, path=pathlib.Path(path))
'''


def test_tests_are_collected_beside_the_plugin_of_a_ros_distribution(tmp_path):
    (tmp_path / 'plugin_of_ros.py').write_text(HOOK_OF_LAUNCH_TESTING)
    (tmp_path / 'test_one.py').write_text('def test_one():\n    pass\n')
    result = subprocess.run(
        [sys.executable, '-m', 'pytest', '-p', 'plugin_of_ros', '-p', 'no:cacheprovider', '-q', 'test_one.py'],
        cwd=tmp_path, env={**os.environ, 'PYTHONPATH': f'{tmp_path}:{os.environ.get("PYTHONPATH", "")}'},
        capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0 and '1 passed' in result.stdout, result.stdout + result.stderr
