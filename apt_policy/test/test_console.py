"""Errors on a console."""

import io

from rich.console import Console

from apt_policy.console import complain


def test_a_long_path_stays_whole_and_as_it_is():
    path = '/somewhere/' + 60 * 'deep/' + '[bold]robot.yaml'
    printed = io.StringIO()
    complain(Console(file=printed, width=40), f'cannot read {path}')
    assert printed.getvalue() == f'cannot read {path}\n'
