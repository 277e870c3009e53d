"""The architecture, as executable rules.

One table says who may import whom; the tests hold the tree to it. Everything is
read with ``ast``, so they need neither ROS nor torch, and imports hidden inside
functions count as well (that is where cycles usually hide).
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 300
MAX_LAUNCH_LINES = 80
# What every program says to its user with.
EVERYWHERE = ('apt_policy.console', 'apt_policy.cli', 'apt_policy.moved')
VAGUE_NAMES = {'utils', 'util', 'common', 'helpers', 'misc'}

# Layer -> the layers it may import, besides itself. The nearest entry of a module counts.
NODES = ('apt_policy.core', 'apt_policy.ros', *EVERYWHERE)
MAY_IMPORT = {
    'apt_policy.console': ('apt_policy.core',),
    'apt_policy.cli': ('apt_policy.core', 'apt_policy.moved'),
    'apt_policy.moved': (),
    'apt_policy.core': (),
    # Checkpoints of an old place are looked for at the new one.
    'apt_policy.model': ('apt_policy.core', 'apt_policy.moved'),
    'apt_policy.inference': ('apt_policy.core', 'apt_policy.model'),
    'apt_policy.ros': ('apt_policy.core', 'apt_policy.inference', 'apt_policy.console', 'apt_policy.moved'),
    'apt_training': ('apt_policy.core', 'apt_policy.model', 'apt_policy.inference.planner', *EVERYWHERE),
    'apt_control': NODES,
    'apt_recorder': NODES,
    # Demonstrations are written as what is trained on, over the suite's one pool; trials run the node's own loop.
    'apt_sim': (*NODES, 'apt_policy.inference', 'apt_control', 'apt_recorder', 'apt_training.episodes',
                'apt_training.bulk'),
    'apt_bringup': (*NODES, 'apt_control'),
    'apt_demos': ('apt_policy', 'apt_training', 'apt_control', 'apt_recorder', 'apt_sim', 'apt_bringup'),
}
ROS_HOMES = ('apt_policy.ros', 'apt_control', 'apt_recorder', 'apt_sim', 'apt_bringup', 'apt_demos')
# External package -> the only modules that may import it; a name that ends in * is a prefix.
ONLY_IN = {
    **dict.fromkeys((
        'rclpy', 'apt_msgs', 'action_msgs', 'builtin_interfaces', 'diagnostic_msgs', 'geometry_msgs',
        'interbotix_xs_msgs', 'lifecycle_msgs', 'rosgraph_msgs', 'sensor_msgs', 'std_msgs', 'std_srvs',
        'tf2_msgs', 'tf2_ros', 'visualization_msgs'), ROS_HOMES),
    # Reads bags with the distribution's own library, where one is sourced.
    'rclpy': (*ROS_HOMES, 'apt_training.convert.rosbag.rosbag2_reader'),
    'rosbag2_py': ('apt_training.convert.rosbag.rosbag2_reader',),
    'torch': ('apt_policy.model', 'apt_policy.inference.planner', 'apt_training'),
    'transformers': ('apt_policy.model.vlm', 'apt_training.vlm_finetune'),
    'mujoco': ('apt_sim.world', 'apt_control'),
    'mink': ('apt_sim.world', 'apt_control'),
    'h5py': ('apt_training.episodes',),
    'deepspeed': ('apt_training.train.deepspeed_backend',),
    'ray': ('apt_training.convert.executors',),
    'pebble': ('apt_training.bulk.pool',),
    'pyarrow': ('apt_training.convert.lerobot.files',),
    'rerun': ('apt_training.inspect.rerun_export',),
}
# Package -> what its __init__ may import when a name is asked for, and not before (module ``__getattr__``).
LAZY_DOORS = {'apt_policy': ('apt_policy.inference.traj_planner',)}
CORE_USES = {'numpy', 'scipy', 'cv2', 'pydantic', 'annotated_types', 'yaml', 'rosbags'}
# What describes the graph is read by launch files and documentation, without ROS.
WITHOUT_ROS = ('apt_bringup.graph', 'apt_bringup.arguments')
PACKAGES = tuple(subprocess.run([sys.executable, ROOT / 'scripts' / 'packages'], stdout=subprocess.PIPE, text=True,
                                check=True).stdout.split())


def find_modules():
    for package in PACKAGES:
        base = ROOT / package
        for path in sorted((base / package).rglob('*.py')):
            name = '.'.join(path.relative_to(base).with_suffix('').parts)
            yield name.removesuffix('.__init__'), path


MODULES = dict(find_modules())
TESTS = {str(path.relative_to(ROOT)): path for folder in ('test', *(f'{p}/test' for p in PACKAGES))
         for path in sorted((ROOT / folder).rglob('*.py'))}


def imports(name):
    """Every dotted name that module ``name`` imports, wherever the import stands."""
    path = MODULES[name]
    parent = name.split('.') if path.stem == '__init__' else name.split('.')[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parent[:len(parent) - node.level + 1] if node.level else []
            stem = '.'.join([*base, *filter(None, [node.module])])
            for alias in node.names:
                full = f'{stem}.{alias.name}'
                yield full if full in MODULES else stem


def within(name, prefix):
    if prefix.endswith('*'):
        return name.startswith(prefix[:-1])
    return name == prefix or name.startswith(prefix + '.')


def layer_of(name):
    return max((layer for layer in MAY_IMPORT if within(name, layer)), key=len, default=None)


@pytest.mark.parametrize('name', MODULES)
def test_imports_point_one_way(name):
    if MODULES[name].stem == '__init__':
        allowed = set(LAZY_DOORS.get(name, ()))
        assert set(imports(name)) <= allowed, f'{name}/__init__.py marks a package; it imports nothing'
        top = ast.parse(MODULES[name].read_text()).body
        assert not [node for node in top if isinstance(node, (ast.Import, ast.ImportFrom))], f'{name} opens at once'
        return
    layer = layer_of(name)
    assert layer, f'{name} is in no layer; give it a home in MAY_IMPORT'
    for target in imports(name):
        if target.split('.')[0] in PACKAGES:
            allowed = (layer, *MAY_IMPORT[layer])
            assert any(within(target, a) for a in allowed), f'{name} may not import {target}'
        for external, homes in ONLY_IN.items():
            if within(target, external):
                assert any(within(name, h) for h in homes), f'{name} may not import {external}'


@pytest.mark.parametrize('name', [n for n in MODULES if within(n, 'apt_policy.core')])
def test_the_core_stays_small(name):
    external = {target.split('.')[0] for target in imports(name)} - set(sys.stdlib_module_names)
    external -= set(PACKAGES)
    assert external <= CORE_USES, f'{name} imports {sorted(external - CORE_USES)}'


@pytest.mark.parametrize('name', WITHOUT_ROS)
def test_the_graph_can_be_read_without_ros(name):
    ours = [target for target in imports(name) if not within(target, 'apt_policy.moved')
            and not within(target, 'apt_policy.core.errors')]
    external = {target.split('.')[0] for target in ours} - set(sys.stdlib_module_names)
    assert external <= {'apt_bringup'}


def test_no_import_cycles():
    graph = {n: {t for t in imports(n) if t in MODULES and t != n} for n in MODULES}
    done, path = set(), []

    def visit(node):
        assert node not in path, ' -> '.join([*path[path.index(node):], node])
        if node not in done:
            path.append(node)
            for target in sorted(graph[node]):
                visit(target)
            path.pop()
            done.add(node)

    for node in graph:
        visit(node)


@pytest.mark.parametrize('name', MODULES)
def test_module_is_short_and_says_what_it_is_for(name):
    text = MODULES[name].read_text()
    lines = len(text.splitlines())
    assert lines <= MAX_LINES, f'{name} has {lines} lines; split it by responsibility'
    if MODULES[name].stem != '__init__':
        assert ast.get_docstring(ast.parse(text)), f'{name} does not say what it is for'
    assert name.split('.')[-1] not in VAGUE_NAMES, f'{name} is named after nothing it does'


@pytest.mark.parametrize('name', MODULES)
def test_importing_does_nothing(name):
    """At module level only definitions: no call statements, loops or bare ``if``s."""
    quiet = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for node in ast.parse(MODULES[name].read_text()).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        guard = isinstance(node, ast.If) and ast.unparse(node.test) in (
            'TYPE_CHECKING', "__name__ == '__main__'")
        assert isinstance(node, quiet) or docstring or guard, f'{name}:{node.lineno}'


@pytest.mark.parametrize('path', TESTS)
def test_tests_use_real_things_and_skip_nothing_silently(path):
    tree = ast.parse(TESTS[path].read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert not any(within(m, 'unittest.mock') or within(m, 'mock') for m in modules), f'{path} mocks'
    marks = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not marks & {'pytest.mark.skip', 'pytest.mark.xfail'}, f'{path} skips a test without looking'


def test_launch_files_only_translate_the_graph():
    files = sorted((ROOT / 'apt_bringup' / 'launch').glob('*.launch.py'))
    assert files
    for path in files:
        assert len(path.read_text().splitlines()) < MAX_LAUNCH_LINES, path.name
