"""The demonstrator in the place of the policy: what the graph says runs, and that all of it exists."""

import re
from pathlib import Path

import pytest

from apt_bringup import graph, run
from apt_bringup.arguments import DEMONSTRATION, ArgumentError, resolve

PACKAGE = Path(__file__).resolve().parents[2]


def demonstration(**given):
    return graph.demonstration(given, PACKAGE)


def test_who_commands_starts_last_and_no_policy_runs_beside_it():
    assert [node.name for node in demonstration().nodes] == ['aloha_sim', 'ik_bridge', 'demonstrator']
    assert not any(node.lifecycle for node in demonstration().nodes)


def test_every_executable_is_an_entry_point_of_its_package():
    for node in demonstration().nodes:
        setup = (PACKAGE.parent / node.package / 'setup.py').read_text()
        assert re.search(rf"'{node.executable} = [\w.]+:main'", setup), node.executable


def test_arguments_reach_the_nodes_that_they_are_for():
    simulator, _, demonstrator = demonstration(skills='pick, push', episodes='3', width='64').nodes
    assert (simulator.parameters['width'], simulator.parameters['height']) == (64, 240)
    assert demonstrator.parameters['skills'] == ('pick', 'push') and demonstrator.parameters['episodes'] == 3


@pytest.mark.parametrize(('given', 'error_text'), [
    ({'episode': '3'}, "there is no argument 'episode'; did you mean episodes?"),
    ({'episodes': 'x'}, "episodes is 'x'; expected a number"),
    ({'await_recorder': 'yes'}, "await_recorder is 'yes'; expected one of true, false")])
def test_a_wrong_argument_is_named_with_what_is_right(given, error_text):
    with pytest.raises(ArgumentError, match=re.escape(error_text)):
        demonstration(**given)


def test_the_runner_lists_the_arguments_of_each_graph(capsys):
    assert run.main(['demonstration', '--show-args']) == 0
    listed = capsys.readouterr().out
    assert all(f'`{argument.name}`' in listed for argument in DEMONSTRATION) and '`checkpoint`' not in listed
    assert resolve({}, DEMONSTRATION)['skills'] == 'pick,place'
