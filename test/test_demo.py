"""The whole road on real ROS 2: simulator, IK bridge and policy as processes over DDS."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import pytest

NODES = ('lib/apt_sim/simulator', 'lib/apt_control/ik_bridge', 'lib/apt_policy/policy')


def start(*words):
    if '--checkpoint' not in words:
        words = (*words, '--checkpoint', 'untrained')
    return subprocess.Popen([sys.executable, '-m', 'apt_demos.demo.main', *words], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


def descendants(root):
    """Command lines of every process that descends from the one with number ``root``."""
    found = {}
    for folder in Path('/proc').iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / 'stat').read_text().rpartition(')')[2].split()[1])
                found[int(folder.name)] = (parent, (folder / 'cmdline').read_text().replace('\0', ' '))
            except (OSError, IndexError):
                continue
    family = {root}
    while grown := {pid for pid, (parent, _) in found.items() if parent in family} - family:
        family |= grown
    return {pid: found[pid][1] for pid in family - {root} if pid in found}


def family_of(process):
    """All descendants of the demonstration, once every node is among them."""
    family = {}
    deadline = time.monotonic() + 60
    while not all(any(node in line for line in family.values()) for node in NODES):
        assert time.monotonic() < deadline, f'not all nodes started: {family}'
        time.sleep(0.2)
        family |= descendants(process.pid)
    return family


def alive(pid):
    try:
        return 'Z' not in Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    except OSError:
        return False


def test_demonstration_moves_both_arms_at_the_control_rate(tmp_path):
    # Slowly, so that a busy machine is no reason to fail; rates are those on the robot's clock.
    process = start('--seconds', '4', '--speed', '0.2', '--prompt', 'push the red cube: to the left',
                    '--out', str(tmp_path))
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    assert 'OK: target rate' in output
    assert 'untrained' in output
    assert (tmp_path / 'tracking.png').read_bytes().startswith(b'\x89PNG')
    assert cv2.imread(str(tmp_path / 'demo.jpg')).shape[:2] == (360, 4 * 427 + 3 * 8)
    with av.open(str(tmp_path / 'demo.mp4')) as film:
        assert sum(1 for _ in film.decode(video=0)) > 20


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM], ids=['Ctrl-C', 'SIGTERM'])
def test_a_signal_ends_every_process_of_the_demonstration(number, tmp_path):
    process = start('--seconds', '60', '--out', str(tmp_path))
    family = family_of(process)
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert 'Traceback' not in output, output
    assert [line for pid, line in family.items() if alive(pid)] == []
    assert not any(tmp_path.iterdir()), 'an interrupted demonstration leaves no half-written picture'


def test_children_end_when_the_demonstration_is_killed_outright(tmp_path):
    process = start('--seconds', '60', '--out', str(tmp_path))
    family = family_of(process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and any(map(alive, family)):
        time.sleep(0.2)
    assert [line for pid, line in family.items() if alive(pid)] == []


@pytest.mark.parametrize(('words', 'error_text'), [
    (('--seconds', '0'), '--seconds is 0; expected 1 to 3600'),
    (('--speed', '3'), '--speed is 3; expected 0.1 to 1'),
    (('--prompt', ' '), '--prompt is empty'),
    (('--scene', '-1'), '--scene is -1; expected 0'),
    (('--secnods', '5'), 'there is no --secnods; did you mean --seconds?'),
    (('--checkpoint', 'missing/folder'), 'missing/folder'),
], ids=['no time', 'too fast', 'no prompt', 'no scene', 'mistyped', 'no checkpoint'])
def test_a_mistake_is_named_and_ends_the_demonstration(words, error_text, tmp_path):
    process = start(*words, '--out', str(tmp_path))
    output = process.communicate(timeout=280)[0]
    assert process.returncode not in (0, None)
    assert error_text in output
