"""The repository as a colcon workspace, as rosdep sees it, and as others will clone it."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
MADE = {'.git', '.venv', 'build', 'install', 'log', 'out',
        '__pycache__', '.pytest_cache', '.ruff_cache', '.mypy_cache'}
PACKAGES = {path.parent.name: path for path in ROOT.glob('apt_*/package.xml')}
PYTHON_PACKAGES = subprocess.run([sys.executable, ROOT / 'scripts' / 'packages'], stdout=subprocess.PIPE, text=True,
                                 check=True).stdout.split()
UNDERLAY = {path.parent.name: path for path in ROOT.glob('underlay/*/package.xml')}
MANIFESTS = {'apt_suite': ROOT / 'package.xml', **PACKAGES, **UNDERLAY}
ROS_MODULE = re.compile(
    r'\w+_(msgs|srvs|interfaces|ros)|apt_\w+|rclpy|launch|ament_index_python|domain_coordinator|cv_bridge')
# cv_bridge is imported by its name as text, where it exists.
IMPORTED = re.compile(r"^\s*(?:from|import) (\w+)|'(cv_bridge)'", re.MULTILINE)
ROSDEP = yaml.safe_load((ROOT / 'test' / 'rosdep_keys.yaml').read_text())
KEYS = {*ROSDEP['distribution'], *ROSDEP['python'], *ROSDEP['skipped']}
KEY_OF_MODULE = {module: key for key, module in ROSDEP['python'].items()} | {
    skipped['module']: key for key, skipped in ROSDEP['skipped'].items()}
# Written in pieces, so that this file does not find itself.
FOREIGN = re.compile('|'.join((
    r'(^|[^\w.])/(work|farm|root)' + '/', r'(^|[^\w.])/home' + r'/\w+', r'\.\./sha' + 'red',
    'pypi' + r'\.org', 'python' + r'hosted\.org', r'download\.py' + r'torch\.org')))
# Imported where a distribution is sourced and has them; training needs no ROS.
OPTIONAL = {'apt_training': {'rclpy'}}


def source_files():
    for path in sorted(ROOT.rglob('*')):
        parts = path.relative_to(ROOT).parts
        made = MADE & set(parts) or any(part.endswith('.egg-info') for part in parts)
        if not made and path.is_file() and not path.is_symlink():
            yield path


def dependencies(manifest):
    kinds = ('depend', 'build_depend', 'buildtool_depend', 'exec_depend', 'test_depend')
    return {element.text for kind in kinds for element in ET.parse(manifest).getroot().iter(kind)}


def listed_by_colcon(folder):
    code = 'from colcon_core.command import main; raise SystemExit(main())'
    result = subprocess.run([sys.executable, '-c', code, '--log-base', '/dev/null', 'list', '-n'], cwd=folder,
                            capture_output=True, text=True, timeout=120, check=True)
    return set(result.stdout.split())


def test_colcon_finds_every_package_from_the_root():
    assert listed_by_colcon(ROOT) == PACKAGES.keys()


def test_colcon_finds_every_package_from_a_parent_folder(tmp_path):
    (tmp_path / 'suite').symlink_to(ROOT)
    assert listed_by_colcon(tmp_path) == PACKAGES.keys()


def test_the_suite_lists_every_external_dependency_for_rosdep():
    needed = set().union(*map(dependencies, PACKAGES.values())) - PACKAGES.keys()
    assert dependencies(MANIFESTS['apt_suite']) == needed


@pytest.mark.parametrize('name', MANIFESTS)
def test_manifest_names_its_package_and_the_licence(name):
    root = ET.parse(MANIFESTS[name]).getroot()
    assert root.findtext('name') == name
    assert root.findtext('license') == 'Apache-2.0'
    assert root.findtext('version') == ET.parse(MANIFESTS['apt_suite']).getroot().findtext('version')


def test_rosdep_knows_every_dependency_or_is_told_to_skip_it():
    needed = set().union(*map(dependencies, MANIFESTS.values())) - PACKAGES.keys()
    assert needed == KEYS


def test_the_documented_rosdep_command_skips_what_it_must():
    page = (ROOT / 'docs' / 'workspace.md').read_text()
    commands = re.findall(r'rosdep install .*--skip-keys "(.*)"', page)
    assert [set(skipped.split()) for skipped in commands] == [ROSDEP['skipped'].keys()]


@pytest.mark.parametrize('name', PYTHON_PACKAGES)
def test_manifest_lists_what_the_package_imports(name):
    """Of ROS, and of what has a rosdep key; other Python packages stand in requirements/."""
    imported = set()
    for path in (ROOT / name).rglob('*.py'):
        imported |= {module for found in IMPORTED.findall(path.read_text()) for module in found if module}
    ros = {module for module in imported if ROS_MODULE.fullmatch(module)} - {name}
    others = {KEY_OF_MODULE[module] for module in imported if module in KEY_OF_MODULE}
    assert (ros | others) - OPTIONAL.get(name, set()) - dependencies(PACKAGES[name]) == set()


def test_files_name_no_machine_and_no_registry():
    found = []
    for path in source_files():
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError:
            continue
        found += [f'{path.relative_to(ROOT)}:{n}: {line.strip()[:100]}'
                  for n, line in enumerate(lines, 1) if FOREIGN.search(line)]
    assert found == []


@pytest.mark.parametrize('path', sorted((ROOT / 'requirements').glob('*.txt')), ids=lambda p: p.name)
def test_requirements_are_pinned(path):
    lines = [line.split('#')[0].strip() for line in path.read_text().splitlines()]
    loose = [line for line in lines if line and '==' not in line.split(';')[0]]
    # The newest setuptools that still links packages into the workspace is whichever is left below 80.
    assert set(loose) <= {'setuptools<80'}


@pytest.mark.parametrize('name', PACKAGES)
def test_no_two_test_files_of_a_package_share_a_name(name):
    """A ROS distribution's pytest plugin imports each by its bare name, and stops at the second of one name."""
    names = [path.name for path in (ROOT / name).rglob('test_*.py')]
    assert sorted(names) == sorted(set(names))


def test_doors_for_newcomers_lead_to_the_bringup_package():
    for door in ('launch', 'config'):
        assert (ROOT / door).resolve() == ROOT / 'apt_bringup' / door
