"""Launch the ALOHA, simulated or real, with its policy: launch_ros actions built from ``apt_bringup.graph``.

The graph has all nodes, parameters and arguments. A node that ends leaves the others running, so a crash of the policy
leaves the driver running; a policy that refuses its first configuration ends the launch.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from apt_bringup import graph
from apt_bringup.arguments import ALOHA
from apt_bringup.launch_handlers import bring_up


def generate_launch_description() -> LaunchDescription:
    """Return the launch arguments, and the actions of the graph for their values."""
    declared = [DeclareLaunchArgument(
        argument.name, default_value=argument.default, description=argument.description,
        choices=argument.choices or None) for argument in ALOHA]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the actions for one set of argument values."""
    given = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in ALOHA}
    described = graph.aloha(given, Path(get_package_share_directory('apt_bringup')))
    environment = [SetEnvironmentVariable(name, value) for name, value in described.environment.items()
                   if name not in context.environment]
    drivers = [IncludeLaunchDescription(
        PythonLaunchDescriptionSource([FindPackageShare(include.package), f'/launch/{include.launch_file}']),
        launch_arguments=include.arguments.items()) for include in described.includes]
    nodes = [action for spec in described.nodes for action in actions(spec, with_drivers=bool(described.includes))]
    return [*environment, *drivers, *nodes]


def actions(spec: graph.NodeSpec, *, with_drivers: bool) -> list[LaunchDescriptionEntity]:
    """One node; a managed one with the handlers that bring it up."""
    # Without a declared type, launch_ros would read a prompt such as "on" or "2: left" as YAML.
    parameters = {name: ParameterValue(value, value_type=type(value))
                  for name, value in spec.parameters.items()}
    node = (LifecycleNode if spec.lifecycle else Node)(
        package=spec.package, executable=spec.executable, name=spec.name, namespace=spec.namespace,
        parameters=[*filter(None, [spec.params_file]), parameters], remappings=spec.remappings,
        output='screen', sigterm_timeout='8', sigkill_timeout='4')
    return [*bring_up(node, spec.full_name, with_drivers=with_drivers), node] if spec.lifecycle else [node]
