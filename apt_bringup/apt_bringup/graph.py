"""Description of the nodes and their parameters, for every way of starting them.

``launch/*.launch.py`` turns it into launch_ros actions, :mod:`apt_bringup.run` into
processes. The module starts nothing and needs no ROS.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from apt_bringup.arguments import DEMONSTRATION, ArgumentError, resolve

# Segments of fastdds.xml for the simulator, the bridge, the policy, and three tools of the user: 67 MiB each.
_SHARED_MEMORY_BYTES = 6 * 67 * 2**20
Value = bool | int | float | str | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class NodeSpec:
    """Node that runs in a process of its own."""

    package: str
    executable: str
    name: str
    namespace: str = ''
    parameters: Mapping[str, Value] = field(default_factory=dict)
    params_file: str = ''
    """File of parameters, which :attr:`parameters` override; empty for none."""
    remappings: tuple[tuple[str, str], ...] = ()
    lifecycle: bool = False
    """True for a managed node, which is configured and activated once it runs."""

    @property
    def full_name(self) -> str:
        """Name with its namespace."""
        return '/' + '/'.join(filter(None, (self.namespace, self.name)))


@dataclass(frozen=True, kw_only=True)
class IncludeSpec:
    """Launch file of another package, which needs a ROS distribution."""

    package: str
    launch_file: str
    arguments: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Nodes in the order in which they start (they stop in the reverse), and what surrounds them."""

    nodes: tuple[NodeSpec, ...]
    includes: tuple[IncludeSpec, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that are set where the user has not set them."""


def aloha(given: Mapping[str, str], share: Path) -> Graph:
    """Return the bimanual ALOHA, simulated or real, with its policy.

    Args:
        given: arguments as in :data:`apt_bringup.arguments.ALOHA`; defaults are filled in.
        share: folder that contains ``config/``.

    Raises:
        ArgumentError: unknown name, or a value out of its choices or not a number.
    """
    arguments = resolve(given)
    simulated = arguments['robot'] == 'sim'
    shipped = share / 'config' / ('aloha_sim.yaml' if simulated else 'aloha.yaml')
    common: dict[str, Value] = {'contract': arguments['contract'] or str(shipped), 'use_sim_time': simulated}
    bridge = NodeSpec(package='apt_control', executable='ik_bridge', name='ik_bridge', parameters=common)
    policy = NodeSpec(
        package='apt_policy', executable='policy', name='apt_policy', lifecycle=True,
        params_file=arguments['params_file'] or str(share / 'config' / 'policy.yaml'),
        parameters={**common, **_policy_parameters(arguments)})
    if simulated and not arguments['params_file']:
        # Physics, rendering and model share the processor; physics and rendering must keep time.
        policy = replace(policy, parameters={**policy.parameters, 'worker_nice': 10, 'replan_period_s': 0.5})
    nodes = (_simulator(arguments, common['contract']), bridge, policy) if simulated else (bridge, policy)
    return Graph(
        nodes=tuple(_in_namespace(node, arguments['namespace'].strip('/')) for node in nodes),
        includes=() if simulated or arguments['drivers'] == 'false' else (_drivers(arguments),),
        environment={'FASTRTPS_DEFAULT_PROFILES_FILE': str(fastdds_profile(share))})


def demonstration(given: Mapping[str, str], share: Path) -> Graph:
    """Return the simulated ALOHA with a scripted demonstrator in the place of the policy.

    Args:
        given: arguments as in :data:`apt_bringup.arguments.DEMONSTRATION`; defaults are filled in.
        share: folder that contains ``config/``.

    Raises:
        ArgumentError: unknown name, or a value out of its choices or not a number.
    """
    arguments = resolve(given, DEMONSTRATION)
    contract = arguments['contract'] or str(share / 'config' / 'aloha_sim.yaml')
    common: dict[str, Value] = {'contract': contract, 'use_sim_time': True}
    simulator = _simulator(arguments, contract)
    simulator = replace(simulator, parameters={
        **simulator.parameters, 'width': _number(arguments, 'width', int),
        'height': _number(arguments, 'height', int)})
    bridge = NodeSpec(package='apt_control', executable='ik_bridge', name='ik_bridge', parameters=common)
    demonstrator = NodeSpec(
        package='apt_sim', executable='demonstrator', name='demonstrator', parameters={
            **common, 'skills': tuple(filter(None, arguments['skills'].replace(' ', '').split(','))),
            'episodes': _number(arguments, 'episodes', int), 'seed': _number(arguments, 'seed', int),
            'await_recorder': arguments['await_recorder'] == 'true'})
    return Graph(
        nodes=tuple(_in_namespace(node, arguments['namespace'].strip('/'))
                    for node in (simulator, bridge, demonstrator)),
        environment={'FASTRTPS_DEFAULT_PROFILES_FILE': str(fastdds_profile(share))})


def _simulator(arguments: Mapping[str, str], contract: Value) -> NodeSpec:
    # It publishes the clock, so it cannot follow it: no use_sim_time.
    return NodeSpec(package='apt_sim', executable='simulator', name='aloha_sim', parameters={
        'contract': contract, 'seed': _number(arguments, 'seed', int),
        'speed': _number(arguments, 'speed', float), 'viewer': arguments['viewer'] == 'true',
        'render': arguments['use_cameras'] == 'true'})


def _policy_parameters(arguments: Mapping[str, str]) -> dict[str, Value]:
    """Return the parameters that were given: an empty argument must not hide the parameter file's value."""
    names = {'checkpoint': 'checkpoint', 'vlm': 'vlm', 'prompt': 'default_prompt', 'device': 'device'}
    parameters: dict[str, Value] = {
        parameter: arguments[name] for name, parameter in names.items() if arguments[name]}
    return {**parameters, 'seed': _number(arguments, 'seed', int)}


def _drivers(arguments: Mapping[str, str]) -> IncludeSpec:
    if arguments['namespace']:
        raise ArgumentError('namespace is set, but the Interbotix drivers take none: '
                            'leave it empty with robot:=aloha')
    return IncludeSpec(package='aloha', launch_file='aloha_bringup.launch.py', arguments={
        'launch_leaders': 'false', 'is_mobile': 'false', 'use_cameras': arguments['use_cameras']})


def _in_namespace(node: NodeSpec, namespace: str) -> NodeSpec:
    """Return a node in a namespace, with the names that ROS keeps global, so that two robots can share a network."""
    if not namespace:
        return node
    shared = ('tf', 'tf_static', 'diagnostics', 'clock')
    return replace(node, namespace=namespace, remappings=tuple((f'/{topic}', topic) for topic in shared))


def _number(arguments: Mapping[str, str], name: str, kind: Callable[[str], Value]) -> Value:
    try:
        return kind(arguments[name])
    except ValueError:
        raise ArgumentError(f'{name} is {arguments[name]!r}; expected a number') from None


def fastdds_profile(share: Path, shared_memory: str = '/dev/shm') -> Path:
    """Return the Fast DDS profile with large segments, or the one for little shared memory.

    ``scripts/env.sh`` chooses in the same way.

    Args:
        share: folder that contains ``config/``.
        shared_memory: file system of the shared memory.
    """
    status = os.statvfs(shared_memory)
    is_enough = status.f_bavail * status.f_frsize >= _SHARED_MEMORY_BYTES
    return share / 'config' / ('fastdds.xml' if is_enough else 'fastdds_small.xml')
