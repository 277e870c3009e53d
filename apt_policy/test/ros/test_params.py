"""Parameters declared from one dataclass: checked at the start and later, refused with the reason."""

import itertools
from dataclasses import dataclass, replace
from enum import Enum

import pytest
import rclpy
from rcl_interfaces.msg import ParameterType
from rclpy.parameter import Parameter

from apt_policy.ros.params import (
    Mutability,
    ParameterError,
    ParameterSet,
    markdown_table,
    parameter,
    parameter_specs,
    read_value,
    ros_value,
)
from apt_policy.ros.policy_params import PolicyParams


class Gait(Enum):
    WALK = 'walk'
    TROT = 'trot'


@dataclass(frozen=True, kw_only=True)
class LegParams:
    """Every kind of parameter."""

    robot: str = parameter('', 'which robot', required=True)
    speed: float = parameter(1.0, 'how fast [m/s]', lower=0.0, upper=2.0, mutability=Mutability.ANYTIME)
    legs: int = parameter(4, 'how many', lower=2, upper=8)
    gait: Gait = parameter(Gait.WALK, 'how', mutability=Mutability.ANYTIME)
    lights: bool = parameter(False, 'on or off', mutability=Mutability.NEVER)
    names: tuple[str, ...] = parameter((), 'of the legs', mutability=Mutability.ANYTIME)

    def __post_init__(self):
        if self.gait is Gait.TROT and self.legs < 4:
            raise ValueError('gait trot needs 4 legs; choose walk or more legs')


@pytest.fixture
def declare(domain):
    nodes = []
    numbers = itertools.count()

    def build(is_configured=lambda: False, **overrides):
        node = rclpy.create_node(f'legs{next(numbers)}', parameter_overrides=[
            Parameter(name, value=value) for name, value in overrides.items()])
        nodes.append(node)
        return node, ParameterSet(node, LegParams, is_configured=is_configured)
    yield build
    for node in nodes:
        node.destroy_node()


def _refusal(node, name, value):
    result = node.set_parameters([Parameter(name, value=value)])[0]
    return '' if result.successful else result.reason


def test_overrides_become_the_fields_types(declare):
    _, params = declare(robot='spot', speed=2, gait='trot', names=['a', 'b'])
    assert params.values == LegParams(robot='spot', speed=2.0, gait=Gait.TROT, names=('a', 'b'))
    assert isinstance(params.values.speed, float), 'an integer in YAML is a fine number'


WRONG = [
    ({}, 'robot is required: which robot'),
    ({'robot': 3}, 'robot is 3 (int), expected string; quote it'),
    ({'speed': 2.5}, 'speed is 2.5, outside 0.0 .. 2.0'),
    ({'speed': float('nan')}, 'speed is nan (float), expected float'),
    ({'speed': True}, 'speed is True (bool), expected float'),
    ({'legs': 9}, 'legs is 9, outside 2 .. 8'),
    ({'legs': 4.0}, 'legs is 4.0 (float), expected int'),
    ({'lights': 1}, 'lights is 1 (int), expected bool'),
    ({'gait': 'hop'}, "gait is 'hop', expected one of walk, trot"),
    ({'names': 'a'}, "names is 'a' (str), expected list of strings"),
    ({'leg': 3}, "there is no parameter 'leg'; did you mean legs?"),
    ({'xyzzy': 3}, "there is no parameter 'xyzzy'; the parameters are robot, speed"),
    ({'robot': 'r', 'gait': 'trot', 'legs': 2}, 'gait trot needs 4 legs'),
]


@pytest.mark.parametrize(('overrides', 'words'), WRONG, ids=[words[:30] for _, words in WRONG])
def test_what_cannot_be_used_ends_the_start_with_the_reason(declare, overrides, words):
    with pytest.raises(ParameterError) as error:
        declare(**overrides)
    assert words in str(error.value)


def test_every_problem_is_named_at_once(declare):
    with pytest.raises(ParameterError) as error:
        declare(speed=9.0, leg=3)
    assert all(words in str(error.value) for words in ('robot is required', 'speed is 9.0', "'leg'"))


def test_a_value_out_of_range_is_refused_while_running_and_the_old_one_stays(declare):
    node, params = declare(robot='spot')
    assert 'speed' in _refusal(node, 'speed', 2.5)
    assert 'gait' in _refusal(node, 'gait', 'hop')
    assert 'DOUBLE' in _refusal(node, 'speed', 'fast')
    assert params.values == LegParams(robot='spot')
    assert node.get_parameter('speed').value == 1.0


def test_a_change_is_taken_by_values_and_by_ros(declare):
    node, params = declare(robot='spot')
    assert not _refusal(node, 'speed', 1.5)
    assert not _refusal(node, 'names', ['x'])
    assert (params.values.speed, params.values.names) == (1.5, ('x',))
    assert node.get_parameter('names').value == ['x']


def test_fields_that_do_not_fit_together_are_refused_while_running(declare):
    node, params = declare(robot='spot', legs=2)
    assert 'needs 4 legs' in _refusal(node, 'gait', 'trot')
    assert params.values.gait is Gait.WALK


def test_what_may_not_change_says_when_it_may(declare):
    node, _ = declare(is_configured=lambda: True, robot='spot')
    assert 'read-only' in _refusal(node, 'lights', True)
    assert 'only while the node is unconfigured' in _refusal(node, 'legs', 6)
    node, _ = declare(is_configured=lambda: False, robot='spot')
    assert not _refusal(node, 'legs', 6)


def test_ros_tools_see_description_and_range(declare):
    node, _ = declare(robot='spot')
    legs, speed, gait = node.describe_parameters(['legs', 'speed', 'gait'])
    assert legs.description.startswith('how many') and legs.type == ParameterType.PARAMETER_INTEGER
    assert (legs.integer_range[0].from_value, legs.integer_range[0].to_value) == (2, 8)
    assert (speed.floating_point_range[0].from_value, speed.floating_point_range[0].to_value) == (0.0, 2.0)
    assert 'walk, trot' in gait.additional_constraints


def test_ros_values_read_back_as_the_fields_own(domain):
    values = LegParams(robot='spot', speed=0.5, legs=6, gait=Gait.TROT, lights=True, names=('a', 'b'))
    for changed in (values, replace(values, names=())):
        for spec in parameter_specs(LegParams):
            value = getattr(changed, spec.name)
            assert read_value(spec, ros_value(spec, value)) == value


def test_every_parameter_of_the_policy_is_described_and_every_number_bounded():
    for spec in parameter_specs(PolicyParams):
        assert len(spec.description) > 8, spec.name
        if spec.kind in (int, float):
            assert spec.lower is not None and spec.upper is not None and spec.lower < spec.upper, spec.name
            assert spec.lower <= spec.default <= spec.upper, spec.name


def test_the_table_has_a_row_per_parameter():
    table = markdown_table(LegParams)
    assert [row.split('`')[1] for row in table.splitlines()[2:]] == [spec.name for spec in parameter_specs(LegParams)]
    assert '| `legs` | int | `4` | 2 .. 8 | while unconfigured | how many |' in table
