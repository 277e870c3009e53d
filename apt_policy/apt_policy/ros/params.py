"""ROS parameters of a node, declared from one frozen dataclass.

Each field has a description, a range and a mutability (:func:`parameter`);
:class:`ParameterSet` declares the parameters on a node, checks values at start and
later, and provides the present values as an instance of the dataclass.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Generic, TypeVar, get_type_hints

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from apt_policy.core.errors import UserError, did_you_mean

P = TypeVar('P')
# Parameters of rclpy itself, some of which are declared only after the node's constructor.
_OF_RCLPY = ('use_sim_time', 'start_type_description_service', 'qos_overrides.')


class ParameterError(UserError, ValueError):
    """Error of invalid parameters; the message names each one and the fix."""


class Mutability(Enum):
    """Time at which a parameter may be changed."""

    NEVER = 'at start only'
    UNCONFIGURED = 'while unconfigured'
    ANYTIME = 'at any time'


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParameterSpec:
    """Specification of one parameter, from a field of the dataclass."""

    name: str
    kind: Any
    """bool, int, float, str, an Enum of strings, or tuple[str, ...]."""
    default: Any
    description: str
    lower: float | None
    upper: float | None
    mutability: Mutability
    required: bool


def parameter(default: Any, description: str, *, lower: float | None = None, upper: float | None = None,
              mutability: Mutability = Mutability.UNCONFIGURED, required: bool = False) -> Any:
    """Define a field of a parameter dataclass.

    Args:
        default: default value.
        description: text for ``ros2 param describe`` and the documentation.
        lower: lower end of a number's inclusive range; give both ends or neither.
        upper: upper end of the range.
        mutability: time at which the parameter may be changed.
        required: True to refuse an empty string.
    """
    return dataclasses.field(default=default, metadata={
        'description': description, 'lower': lower, 'upper': upper, 'mutability': mutability, 'required': required})


def parameter_specs(cls: type[Any]) -> tuple[ParameterSpec, ...]:
    """Return the specifications of a dataclass's parameters, in its order."""
    kinds = get_type_hints(cls)
    return tuple(ParameterSpec(name=f.name, kind=kinds[f.name], default=f.default, **f.metadata)
                 for f in dataclasses.fields(cls))


def read_value(spec: ParameterSpec, raw: Any) -> Any:
    """Convert a ROS parameter's value to the dataclass's type; the inverse of :func:`ros_value`.

    Raises:
        ParameterError: the value has a wrong type, is out of range, or is not one of the choices.
    """
    value = _typed(spec, raw)
    if spec.required and value == '':
        raise ParameterError(f'{spec.name} is required: {spec.description}')
    if spec.lower is not None and spec.upper is not None and not spec.lower <= value <= spec.upper:
        raise ParameterError(
            f'{spec.name} is {value}, outside {spec.lower} .. {spec.upper}: {spec.description}')
    return value


def ros_value(spec: ParameterSpec, value: Any) -> Any:
    """Convert a field's value to a type of ROS parameters; the inverse of :func:`read_value`."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        # rclpy takes an empty list for bytes, so "no strings" is one empty string.
        return list(value) or ['']
    return float(value) if spec.kind is float else value


class ParameterSet(Generic[P]):
    """Parameters of one node.

    :attr:`values` is always a consistent instance: a set of changes is accepted or
    refused as a whole, with the reason in the service's response.
    """

    def __init__(self, node: Node, cls: type[P], *,
                 is_configured: Callable[[], bool] = lambda: False) -> None:
        """Declare every field on ``node``.

        Args:
            node: node of the parameters.
            cls: parameter dataclass.
            is_configured: called when a parameter with :attr:`Mutability.UNCONFIGURED` is set.

        Raises:
            ParameterError: overrides are unknown, of a wrong type or out of range; the message names each one.
        """
        self._cls = cls
        self._specs = {spec.name: spec for spec in parameter_specs(cls)}
        self._is_configured = is_configured
        # The only place where rclpy keeps undeclared overrides.
        overrides: dict[str, Parameter] = node._parameter_overrides  # type: ignore[attr-defined]
        self.values: P = _from_overrides(cls, tuple(self._specs.values()), overrides, node)
        for spec in self._specs.values():
            node.declare_parameter(spec.name, ros_value(spec, getattr(self.values, spec.name)),
                                   descriptor(spec), ignore_override=True)
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._apply)

    def _changed(self, parameters: Sequence[Parameter]) -> P:
        mine = [(self._specs[p.name], p.value) for p in parameters if p.name in self._specs]
        locked = [spec.name for spec, _ in mine if spec.mutability is Mutability.UNCONFIGURED]
        if locked and self._is_configured():
            raise ParameterError(f'{", ".join(locked)} can change only while the node is unconfigured: '
                                 'deactivate and clean it up first')
        changes = {spec.name: read_value(spec, raw) for spec, raw in mine}
        return _build(self._cls, {**_fields(self.values), **changes})

    def _check(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        try:
            self._changed(parameters)
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply(self, parameters: Sequence[Parameter]) -> None:
        self.values = self._changed(parameters)


def descriptor(spec: ParameterSpec) -> ParameterDescriptor:
    """Build the descriptor: the text of ``ros2 param describe`` and the range that rclpy enforces."""
    described = ParameterDescriptor(
        description=f'{spec.description} (changes {spec.mutability.value})',
        additional_constraints=_choices(spec.kind), read_only=spec.mutability is Mutability.NEVER)
    if spec.lower is not None and spec.upper is not None:
        if spec.kind is int:
            described.integer_range = [IntegerRange(from_value=int(spec.lower), to_value=int(spec.upper))]
        else:
            described.floating_point_range = [
                FloatingPointRange(from_value=float(spec.lower), to_value=float(spec.upper))]
    return described


def markdown_table(cls: type[Any]) -> str:
    """Format the parameters of a dataclass as a Markdown table for the documentation."""
    lines = ['| parameter | type | default | range | changes | meaning |', '|---|---|---|---|---|---|']
    for spec in parameter_specs(cls):
        default = 'required' if spec.required else f'`{json.dumps(ros_value(spec, spec.default))}`'
        span = _choices(spec.kind) if spec.lower is None else f'{spec.lower} .. {spec.upper}'
        lines.append(f'| `{spec.name}` | {_type_name(spec.kind)} | {default} | {span} | {spec.mutability.value} '
                     f'| {spec.description} |')
    return '\n'.join(lines) + '\n'


def _from_overrides(cls: type[P], known: Sequence[ParameterSpec], overrides: dict[str, Parameter], node: Node) -> P:
    problems = [_unknown(name, known) for name in overrides
                if name not in {spec.name for spec in known}
                and not name.startswith(_OF_RCLPY) and not node.has_parameter(name)]
    values = {}
    for spec in known:
        try:
            given = overrides.get(spec.name)
            raw = ros_value(spec, spec.default) if given is None else given.value
            values[spec.name] = read_value(spec, raw)
        except ParameterError as error:
            problems.append(str(error))
    if problems:
        raise ParameterError(f'cannot start {node.get_name()}: ' + '; '.join(problems))
    return _build(cls, values)


def _build(cls: type[P], values: dict[str, Any]) -> P:
    try:
        return cls(**values)
    except ParameterError:
        raise
    except ValueError as error:
        raise ParameterError(str(error)) from error


def _fields(values: Any) -> dict[str, Any]:
    return {field.name: getattr(values, field.name) for field in dataclasses.fields(values)}


def _unknown(name: str, known: Sequence[ParameterSpec]) -> str:
    names = [spec.name for spec in known]
    return f'there is no parameter {name!r}' + (
        did_you_mean(name, names) or f'; the parameters are {", ".join(names)}')


def _typed(spec: ParameterSpec, raw: Any) -> Any:
    kind = spec.kind
    if isinstance(kind, type) and issubclass(kind, Enum):
        try:
            return kind(raw)
        except ValueError:
            raise ParameterError(f'{spec.name} is {raw!r}, expected {_choices(kind)}') from None
    if kind == tuple[str, ...] and isinstance(raw, list | tuple) and all(isinstance(s, str) for s in raw):
        return tuple(s for s in raw if s)
    if kind is float and isinstance(raw, int | float) and not isinstance(raw, bool) and math.isfinite(raw):
        return float(raw)
    if kind in (bool, int, str) and type(raw) is kind:
        return raw
    hint = '; quote it' if kind is str and raw is not None else ''
    raise ParameterError(f'{spec.name} is {raw!r} ({type(raw).__name__}), expected {_type_name(kind)}{hint}')


def _choices(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return 'one of ' + ', '.join(str(member.value) for member in kind)
    return ''


def _type_name(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return 'string'
    return {bool: 'bool', int: 'int', float: 'float', str: 'string'}.get(kind, 'list of strings')
