"""Start a graph where ``ros2 launch`` is missing: ``python -m apt_bringup.run aloha robot:=sim``.

The same arguments, nodes and order as ``aloha.launch.py``. Ctrl-C, or a policy that refuses to be configured or
activated, ends everything, the policy first.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event

import rclpy
from ament_index_python.packages import get_package_share_directory
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from apt_bringup import arguments, graph
from apt_bringup.managed import BringUpAbortedError, BringUpError, bring_up, running_nodes
from apt_bringup.session import Session, StartError
from apt_policy.core.errors import did_you_mean
from apt_policy.core.stop import handle_stop_signals

GRAPHS: Mapping[str, Callable[[Mapping[str, str], Path], graph.Graph]] = {
    'aloha': graph.aloha, 'demonstration': graph.demonstration}
DECLARED = {'aloha': arguments.ALOHA, 'demonstration': arguments.DEMONSTRATION}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a graph until Ctrl-C, SIGTERM, or until every node has ended.

    Returns:
        0 when stopped by a signal or ended as meant, 1 when a node failed or refused the bring-up, 2 when nothing was
        started: arguments that cannot be used, or a graph that runs already.
    """
    parser = argparse.ArgumentParser(
        prog='run', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('graph', help=', '.join(GRAPHS))
    parser.add_argument('arguments', nargs='*', metavar='name:=value')
    parser.add_argument('-s', '--show-args', action='store_true', help='list the arguments and exit')
    options = parser.parse_args(argv)
    if options.graph not in GRAPHS:
        near = did_you_mean(options.graph, GRAPHS) or f'; expected one of {", ".join(GRAPHS)}'
        parser.exit(2, f'run: there is no graph {options.graph!r}{near}\n')
    if options.show_args:
        print(arguments.describe(DECLARED[options.graph]))
        return 0
    share = Path(get_package_share_directory('apt_bringup'))
    # The handlers stay: a last Ctrl-C, when all has ended, must not become this program's exit status.
    stop = handle_stop_signals()
    try:
        described = GRAPHS[options.graph](arguments.parse(options.arguments), share)
        session = Session(described)
        _check_alone(described)
    except (arguments.ArgumentError, StartError) as error:
        print(f'run: {error}', file=sys.stderr)
        return 2
    return 0 if stop.is_set() else _run(session, stop)


def _check_alone(described: graph.Graph) -> None:
    """Raise StartError if a node of this graph runs already: its answers would count as those of the new one."""
    with _client_node() as (node, executor):
        if taken := running_nodes(node, executor, [spec.full_name for spec in described.nodes]):
            raise StartError(f'already running: {", ".join(taken)}. End that graph first, or give this one a '
                             'namespace:=... or a ROS_DOMAIN_ID of its own')


def _run(session: Session, stop: Event) -> int:
    with session:
        ends = _Ends(session)
        try:
            is_up = _bring_up_all(session, stop, ends)
            while not stop.wait(0.2):
                ends.update()
                if not session.running:
                    break
        except BringUpError as error:
            print(f'run: {error}', file=sys.stderr, flush=True)
            is_up = False
        print('run: stopping, the policy first', flush=True)
    return 0 if is_up and not ends.failed else 1


@contextmanager
def _client_node() -> Iterator[tuple[Node, Executor]]:
    """Provide a node of this process, and its executor."""
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('bring_up')
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        yield node, executor
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown()


class _Ends:
    """Observer that prints once for each node that it ended by itself."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.seen: set[str] = set()
        self.failed = False
        """True if one of them ended with an error."""

    def update(self) -> None:
        """Print the nodes that have ended since the last call."""
        ended = self._session.ended
        for name in ended.keys() - self.seen:
            self.seen.add(name)
            self.failed = self.failed or ended[name] != 0
            print(f'run: {name} ended by itself with status {ended[name]}; the others continue', flush=True)


def _bring_up_all(session: Session, stop: Event, ends: _Ends) -> bool:
    """Bring up all managed nodes; return False if one ended on the way, which is printed and leaves the rest running.

    Raises:
        BringUpError: a node refused.
    """
    def is_hopeless(name: str) -> bool:
        ends.update()
        return stop.is_set() or not session.is_running(name)

    with _client_node() as (client, executor):
        try:
            for node in session.managed:
                bring_up(client, executor, node.full_name, give_up=partial(is_hopeless, node.name))
                print(f'run: {node.name} is active; the arms move after apt-ctl enable', flush=True)
        except BringUpAbortedError as error:
            if not stop.is_set():
                print(f'run: {error}', file=sys.stderr, flush=True)
            return stop.is_set()
    return True


if __name__ == '__main__':
    sys.exit(main())
