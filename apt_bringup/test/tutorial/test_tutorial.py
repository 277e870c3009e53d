"""The tutorial's driver: steps that are done stay done, and what fails is said. Its steps here are small programs."""

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

from apt_bringup.tutorial.main import _Tutorial, main
from apt_bringup.tutorial.plan import Sizes, Step, named, steps

PACKAGE = Path(__file__).resolve().parents[2]
CONTRACT = PACKAGE / 'config' / 'aloha_tutorial.yaml'
STEPS = steps(Path('out'), CONTRACT, Sizes())


@pytest.fixture
def tutorial(tmp_path):
    return lambda: _Tutorial(tmp_path, Console(), Event())


@pytest.fixture
def step(tmp_path):
    """A step that appends its name to a file, then does this."""
    def make(name, code=''):
        made = tmp_path / 'made'
        text = f"open({str(made)!r}, 'a').write({name!r}); {code}"
        return Step(name=name, why='', typed='x', module='code', words=('-q', '-c', text), product=made)
    return make


@pytest.fixture(autouse=True)
def runner(tmp_path, monkeypatch):
    """A module that runs the code it is given, for steps to name."""
    (tmp_path / 'code.py').write_text('import sys\nexec(sys.argv[-1])\n')
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{os.environ.get("PYTHONPATH", "")}')
    return tmp_path


def test_each_step_is_done_once(tutorial, step, tmp_path):
    chosen = [step('one'), step('two')]
    assert tutorial().run(chosen) == 0
    assert tutorial().run(chosen) == 0
    assert (tmp_path / 'made').read_text() == 'onetwo'


def test_a_step_whose_command_changed_is_done_again(tutorial, step, tmp_path):
    assert tutorial().run([step('one')]) == 0
    assert tutorial().run([replace(step('one'), words=(*step('one').words[:2], "print('again')"))]) == 0
    assert tutorial().run([step('one')]) == 0
    assert (tmp_path / 'made').read_text() == 'oneone'


def test_after_a_failure_the_same_command_goes_on_there(tutorial, step, tmp_path, capsys):
    fixed = f"__import__('os').path.exists({str(tmp_path / 'fixed')!r})"
    broken = [step('one'), step('two', f'sys.exit(0 if {fixed} else 3)')]
    assert tutorial().run(broken) == 1
    assert 'two failed with status 3' in ' '.join(capsys.readouterr().out.split())
    (tmp_path / 'fixed').touch()
    assert tutorial().run(broken) == 0
    assert (tmp_path / 'made').read_text() == 'onetwotwo'


def test_a_step_that_makes_nothing_has_failed(tutorial, step, tmp_path):
    empty = replace(step('one'), product=tmp_path / 'nowhere')
    assert tutorial().run([empty]) == 1


def test_ctrl_c_ends_the_step_that_runs_and_leaves_nobody_behind(tmp_path, step):
    program = f'''
from pathlib import Path
from threading import Event
from rich.console import Console
from apt_bringup.stop import stop_requests
from apt_bringup.tutorial.main import _Tutorial
from apt_bringup.tutorial.plan import Step
code = "import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
one = Step(name='one', why='', typed='x', module='code', words=('-c', code), product=Path({str(tmp_path / 'pid')!r}))
with stop_requests() as stop:
    raise SystemExit(_Tutorial(Path({str(tmp_path)!r}), Console(), stop).run([one]))
'''
    process = subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not ((tmp_path / 'pid').exists() and (tmp_path / 'pid').read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[0]
    assert process.returncode == 130 and 'the same command goes on here' in said
    assert not Path(f'/proc/{(tmp_path / "pid").read_text()}').exists()
    assert not list((tmp_path / '.done').iterdir())


def test_every_step_uses_only_what_earlier_ones_made():
    outputs, made = {'--out', '--json', '--plots', '--ckpt_dir', '--feature-cache'}, set()
    for one in STEPS:
        before = [None, *one.words]
        used = {Path(word) for word, flag in zip(one.words, before, strict=False)
                if word.startswith('out/') and flag not in outputs} - {one.product}
        assert used <= made, one.name
        made.add(one.product)


def test_steps_can_be_chosen_by_name():
    assert [one.name for one in named(['train', 'record training'], STEPS)] == ['record training', 'train']
    assert named([], STEPS) == STEPS
    with pytest.raises(ValueError, match="no step 'trian'; there are 'record training'"):
        named(['trian'], STEPS)


def test_a_mistake_in_a_name_ends_it_before_anything_starts(tmp_path, capsys):
    assert main(['--out', str(tmp_path / 'out'), '--only', 'bake']) == 2
    assert "no step 'bake'" in capsys.readouterr().out
    assert not (tmp_path / 'out').exists()
