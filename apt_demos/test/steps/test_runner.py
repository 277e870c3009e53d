"""Runner of command steps, with small programs as steps."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from rich.console import Console

from apt_demos.steps.runner import StepRunner
from apt_demos.steps.step import CommandStep


@pytest.fixture
def work(tmp_path):
    return lambda **more: StepRunner('work', tmp_path, Console(), Event(), **more)


@pytest.fixture
def step(tmp_path):
    """Return a step that appends its name to a file and then runs ``text``."""
    def make(name, code=''):
        made = tmp_path / 'made'
        text = f"open({str(made)!r}, 'a').write({name!r}); {code}"
        return CommandStep(name=name, description='', program='x', module='code', arguments=('-q', '-c', text),
                           output=made)
    return make


@pytest.fixture(autouse=True)
def code(tmp_path, monkeypatch):
    """Create a module that runs the code of its arguments."""
    (tmp_path / 'code.py').write_text('import sys\nexec(sys.argv[-1])\n')
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{os.environ.get("PYTHONPATH", "")}')
    return tmp_path


def test_each_step_is_done_once(work, step, tmp_path):
    chosen = [(step('one'),), (step('two'),)]
    assert work().run(chosen) == 0
    assert work().run(chosen) == 0
    assert (tmp_path / 'made').read_text() == 'onetwo'


def test_a_step_whose_command_changed_is_done_again(work, step, tmp_path):
    assert work().run([(step('one'),)]) == 0
    assert work().run([(replace(step('one'), arguments=(*step('one').arguments[:2], "print('again')")),)]) == 0
    assert work().run([(step('one'),)]) == 0
    assert (tmp_path / 'made').read_text() == 'oneone'


def test_a_step_whose_modules_were_renamed_is_not_done_again(work, step, tmp_path):
    def called(module):
        return replace(step('one'), program=f'python -m {module}.main',
                       arguments=('-m', f'{module}.lesson', *step('one').arguments))
    assert work().run([(called('old.place'),)]) == 0
    assert work().run([(called('new'),)]) == 0
    assert (tmp_path / 'made').read_text() == 'one'


def test_after_a_failure_the_same_command_goes_on_there(work, step, tmp_path, capsys):
    fixed = f"__import__('os').path.exists({str(tmp_path / 'fixed')!r})"
    broken = [(step('one'),), (step('two', f'sys.exit(0 if {fixed} else 3)'),)]
    assert work().run(broken) == 1
    assert 'two ended with status 3' in ' '.join(capsys.readouterr().out.split())
    (tmp_path / 'fixed').touch()
    assert work().run(broken) == 0
    assert (tmp_path / 'made').read_text() == 'onetwotwo'


def test_a_step_that_makes_nothing_has_failed(work, step, tmp_path):
    empty = replace(step('one'), output=tmp_path / 'nowhere')
    assert work().run([(empty,)]) == 1


def test_ctrl_c_ends_the_running_step_and_leaves_no_process(tmp_path, step):
    program = f'''
from pathlib import Path
from threading import Event
from rich.console import Console
from apt_policy.core.stop import stop_requests
from apt_demos.steps.runner import StepRunner
from apt_demos.steps.step import CommandStep
code = "import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
one = CommandStep(name='one', description='', program='x', module='code', arguments=('-c', code),
                  output=Path({str(tmp_path / 'pid')!r}))
with stop_requests() as stop:
    raise SystemExit(StepRunner('work', Path({str(tmp_path)!r}), Console(), stop).run([(one,)]))
'''
    process = subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not ((tmp_path / 'pid').exists() and (tmp_path / 'pid').read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[0]
    assert process.returncode == 130 and 'run the same command to continue' in said
    assert not Path(f'/proc/{(tmp_path / "pid").read_text()}').exists()
    assert not list((tmp_path / '.done').iterdir())


def test_steps_of_a_phase_run_side_by_side(work, tmp_path):
    def meets(name, other):
        code = (f"import time; from pathlib import Path; here = Path({str(tmp_path)!r}); (here / {name!r}).touch()\n"
                f"end = time.monotonic() + 30\n"
                f"while not (here / {other!r}).exists():\n    assert time.monotonic() < end; time.sleep(0.05)")
        return CommandStep(name=name, description='', program='x', module='code', arguments=('-q', '-c', code),
                           output=tmp_path / name)
    assert work(jobs=2).run([(meets('one', 'two'), meets('two', 'one'))]) == 0


def test_a_failure_lets_its_neighbour_finish_and_begins_no_other(work, step, tmp_path):
    slow = step('slow', "__import__('time').sleep(1)")
    assert work(jobs=2).run([(step('bad', 'sys.exit(3)'), slow, step('late')), (step('after'),)]) == 1
    assert sorted(path.name for path in (tmp_path / '.done').iterdir()) == ['slow']
    assert 'late' not in (tmp_path / 'made').read_text() and 'after' not in (tmp_path / 'made').read_text()
