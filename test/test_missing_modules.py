"""What a node says whose Python lacks something: one line, and how to get it."""

import subprocess
import sys

import pytest

# In the child, the module is not there to be found.
HIDE = '''
import runpy, sys
from importlib.abc import MetaPathFinder
module, hidden, *words = sys.argv[1:]
class Hiding(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == hidden:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Hiding())
sys.argv = [module, *words]
runpy.run_module(module, run_name='__main__')
'''


@pytest.mark.parametrize(('module', 'name', 'hidden', 'remedy'), [
    ('apt_policy.ros.node', 'apt_policy', 'torch', 'requirements/python.txt'),
    ('apt_policy.ros.node', 'apt_policy', 'pydantic', 'requirements/python.txt'),
    ('apt_policy.ros.node', 'apt_policy', 'apt_msgs', 'build the workspace'),
    ('apt_policy.ros.node', 'apt_policy', 'geometry_msgs', 'source the ROS distribution'),
    ('apt_control.node', 'ik_bridge', 'interbotix_xs_msgs', 'underlay/'),
    ('apt_control.node', 'ik_bridge', 'mujoco', 'requirements/python.txt'),
    ('apt_sim.world.node', 'aloha_sim', 'mujoco', 'requirements/python.txt'),
    ('apt_sim.world.node', 'aloha_sim', 'rclpy', 'source the ROS distribution'),
    ('apt_sim.tasks.node', 'demonstrator', 'pydantic', 'requirements/python.txt'),
])
def test_a_node_says_in_one_line_what_its_python_lacks_and_how_to_get_it(module, name, hidden, remedy):
    ended = subprocess.run([sys.executable, '-c', HIDE, module, hidden], capture_output=True, text=True, timeout=120,
                           check=False)
    assert ended.returncode == 1
    assert ended.stderr.count('\n') == 1 and 'docs/workspace.md' in ended.stderr
    assert ended.stderr.startswith(f'{name}: {sys.executable} finds no {hidden}: ') and remedy in ended.stderr


@pytest.mark.parametrize(('module', 'program', 'hidden', 'words'), [
    ('apt_training.inspect.main', 'apt-inspect', 'tyro', ['episode.h5']),
    ('apt_training.inspect.main', 'apt-inspect', 'h5py', ['episode.h5']),
    ('apt_training.train.main', 'apt-train', 'torch', ['--config', 'debug']),
    ('apt_training.convert.main', 'apt-convert', 'cv2', ['bag', '--contract', 'robot.yaml', '--out', 'out']),
    ('apt_recorder.main', 'apt-record', 'rclpy', ['bag']),
    ('apt_policy.ros.ctl', 'apt-ctl', 'rclpy', ['disable']),
    ('apt_sim.vqa.main', 'apt-sim-vqa', 'mujoco', ['--shards', '1', '--out', 'out'])])
def test_a_command_says_it_in_one_line_too(module, program, hidden, words, tmp_path):
    ended = subprocess.run([sys.executable, '-c', HIDE, module, hidden, *words], capture_output=True, text=True,
                           timeout=120, check=False, cwd=tmp_path)
    assert ended.returncode == 1 and ended.stderr.count('\n') == 1
    assert ended.stderr.startswith(f'{program}: {sys.executable} finds no {hidden}: ')


def test_a_fault_in_the_code_keeps_its_traceback():
    code = ('from apt_policy.console import explain_missing\n'
            'with explain_missing("node"):\n'
            '    import json.no_such_part')
    ended = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1 and 'Traceback' in ended.stderr and 'json.no_such_part' in ended.stderr
