"""Errors on a console."""

import io

import pytest
from rich.console import Console

from apt_policy.console import print_error, run_program
from apt_policy.core.contract import ContractError
from apt_policy.core.errors import UserError


def test_a_long_path_stays_whole_and_as_it_is():
    path = '/somewhere/' + 60 * 'deep/' + '[bold]robot.yaml'
    printed = io.StringIO()
    print_error(Console(file=printed, width=40), f'cannot read {path}')
    assert printed.getvalue() == f'cannot read {path}\n'


def test_an_error_of_the_user_is_one_line_without_a_class_name(capsys, tmp_path):
    def refuse():
        raise ContractError('arm left has 5 joints, expected 6')

    def open_missing():
        (tmp_path / 'robot.yaml').open()

    assert issubclass(ContractError, UserError) and run_program('apt-x', refuse) == 2
    assert capsys.readouterr().err == 'apt-x: arm left has 5 joints, expected 6\n'
    assert run_program('apt-x', open_missing) == 2
    assert capsys.readouterr().err == f'apt-x: {tmp_path / "robot.yaml"}: No such file or directory\n'


def test_a_fault_of_the_program_keeps_its_traceback_and_ctrl_c_its_status(capsys):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(ZeroDivisionError):
        run_program('apt-x', lambda: 1 // 0)
    assert run_program('apt-x', interrupt) == 130 and 'interrupted' in capsys.readouterr().err
    assert run_program('apt-x', lambda: 3) == 3
