"""Running graph: its processes, its managed nodes, and the order in which all end."""

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import yaml
from ament_index_python.packages import PackageNotFoundError, get_package_prefix

from apt_bringup.graph import Graph, NodeSpec
from apt_bringup.supervise import ChildProcess, StopTimeouts
from apt_policy.core.errors import UserError


class StartError(UserError, RuntimeError):
    """Graph that cannot be started on this machine."""


class Session:
    """Context manager that runs every node of a graph in a process of its own.

    A node that ends leaves the others running: a crash of the policy must not end the driver.
    """

    def __init__(self, graph: Graph, *, environment: Mapping[str, str] | None = None,
                 stop_timeouts: StopTimeouts | None = None, out: TextIO = sys.stdout) -> None:
        """Look for the executables; nothing starts yet.

        Args:
            graph: nodes to run.
            environment: environment of the processes; None for that of this process.
            stop_timeouts: time that each process has to end.
            out: output of the processes.

        Raises:
            StartError: a launch file of another package is needed, or an executable is missing.
        """
        if graph.includes:
            wanted = ', '.join(f'{i.package}/{i.launch_file}' for i in graph.includes)
            raise StartError(f'this graph includes {wanted}: start it with "ros2 launch" of a ROS '
                             'distribution, or start the drivers yourself and give drivers:=false')
        self._graph = graph
        self._environment = {**graph.environment, **(os.environ if environment is None else environment)}
        self._stop_timeouts = stop_timeouts or StopTimeouts()
        self._out = out
        self._commands = [executable(node) for node in graph.nodes]
        self._processes: dict[str, ChildProcess] = {}
        self._folder = tempfile.TemporaryDirectory(prefix='apt_')

    def __enter__(self) -> 'Session':
        try:
            for colour, (node, path) in enumerate(zip(self._graph.nodes, self._commands, strict=True)):
                command = [str(path), *ros_arguments(node, Path(self._folder.name))]
                self._processes[node.name] = ChildProcess(
                    node.name, command, self._environment, colour=colour, out=self._out)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def ended(self) -> dict[str, int]:
        """Exit status of every node that has ended."""
        return {name: status for name, process in self._processes.items()
                if (status := process.exit_status) is not None}

    @property
    def running(self) -> list[str]:
        """Names of the nodes that run."""
        return [name for name in self._processes if self.is_running(name)]

    @property
    def managed(self) -> list[NodeSpec]:
        """Nodes that must be configured and activated."""
        return [node for node in self._graph.nodes if node.lifecycle]

    def is_running(self, name: str) -> bool:
        """Return whether the node's process runs."""
        return self._processes[name].exit_status is None

    def stop(self) -> dict[str, int]:
        """End everything, in the reverse order of the start: nodes that command motion before those that execute it.

        Returns:
            Exit status by node.
        """
        statuses = {name: process.stop(self._stop_timeouts)
                    for name, process in reversed(self._processes.items())}
        self._processes.clear()
        self._folder.cleanup()
        return statuses


def executable(node: NodeSpec) -> Path:
    """Return the path at which colcon installed a node.

    Raises:
        StartError: the package is not built, or the environment not sourced.
    """
    try:
        path = Path(get_package_prefix(node.package)) / 'lib' / node.package / node.executable
    except PackageNotFoundError as error:
        raise StartError(f'{node.package} is not built, or its workspace not sourced: run "make build", '
                         'then "source scripts/env.sh"') from error
    if not path.exists():
        raise StartError(f'{node.package} has no executable {node.executable!r} in {path.parent}: '
                         'build it again with "make build"')
    return path


def ros_arguments(node: NodeSpec, folder: Path) -> list[str]:
    """Return the arguments of a node's executable, and write its parameters to a file in ``folder``."""
    words = ['--ros-args', '-r', f'__node:={node.name}']
    if node.namespace:
        words += ['-r', f'__ns:=/{node.namespace}']
    for old, new in node.remappings:
        words += ['-r', f'{old}:={new}']
    if node.params_file:
        words += ['--params-file', node.params_file]
    # A file, since on the command line a prompt with a colon would be read as YAML.
    path = folder / f'{node.name}.yaml'
    path.write_text(yaml.safe_dump({'/**': {'ros__parameters': dict(node.parameters)}}))
    return [*words, '--params-file', str(path)]
