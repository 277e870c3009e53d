"""Command lines of the suite: frozen dataclasses, which tyro turns into flags, with errors of one line.

A program declares its flags as a dataclass whose fields have docstrings, and calls :func:`parse`. Flags have hyphens;
underscores are accepted as well. A field ``bool | None`` is a switch of three states: ``--x``, ``--no-x`` or neither.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar, get_args, get_type_hints

import tyro
from tyro import _errors  # The only place where tyro tells what is wrong before it draws a box; requirements pin it.

from apt_policy.core.errors import UserError, did_you_mean
from apt_policy.moved import REMOVAL_RELEASE

_NOT_A_NUMBER = re.compile(r"(int\(\) with base 10|to float): (?P<value>'.*')$")
T = TypeVar('T')


class UsageError(UserError):
    """Command line that cannot be used."""


def flag(metavar: str | None = None, *aliases: str, name: str | None = None, default: str | None = None) -> Any:
    """Return metadata of a field, for ``Annotated``.

    Args:
        metavar: placeholder of the value in the help text; a word for the type if left out.
        aliases: other spellings that stay, such as ``--bs``.
        name: name of the flag, where it is not that of the field.
        default: description of the default value, where it is not a plain value.
    """
    hint = None if default is None else f'(default: {default})' if default else ''
    return tyro.conf.arg(metavar=metavar, aliases=list(aliases) or None, name=name, help_behavior_hint=hint)


def parse(arguments: type[T], argv: Sequence[str] | None, *, program: str, examples: str = '',
          renamed: Mapping[str, str] | None = None) -> T:
    """Read a command line.

    Args:
        arguments: dataclass of the flags; its docstring is the description of the program.
        argv: words of the command line; None for those of this process.
        program: name of the program.
        examples: text that follows the description.
        renamed: flags by the names that they had before; they work, and the new name is printed on stderr.

    Returns:
        The values.

    Raises:
        UsageError: the command line cannot be used.
        SystemExit: with status 0, after ``--help``.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # What follows a separator are positional words, whatever they begin with.
    end = words.index('--') if '--' in words else len(words)
    flags = _rewrite_switches(arguments, _rewrite_renamed(words[:end], renamed or {}, program))
    _check_flags(arguments, flags)
    words = [*flags, *words[end:]]

    def refuse(event: _errors.ParseErrorEvent) -> None:
        if text := _sentence(event):
            raise UsageError(text)

    try:
        with _errors.on_parse_error(refuse):
            return tyro.cli(arguments, args=words, prog=program, config=(tyro.conf.EnumChoicesFromValues,),
                            description='\n\n'.join(filter(None, [arguments.__doc__, examples.strip('\n')])))
    except ValueError as error:
        raise UsageError(str(error)) from error


def require_words(metavar: str, words: Sequence[object]) -> None:
    """Check that a positional argument of several words has at least one.

    Raises:
        UsageError: there is none.
    """
    if not words:
        raise UsageError(f'missing: {metavar} (see --help)')


def require_at_least(lowest: float, **values: float | None) -> None:
    """Check numbers of a command line.

    Args:
        lowest: smallest value that is accepted.
        values: by field; None passes.

    Raises:
        UsageError: one is too small.
    """
    for name, value in values.items():
        if value is not None and not value >= lowest:
            raise UsageError(f'{_spelled(name)} is {value:g}; expected {lowest:g} or more')


def _rewrite_renamed(words: Sequence[str], renamed: Mapping[str, str], program: str) -> list[str]:
    """Replace flags that have another name now, and print the new one once."""
    known = {old.replace('_', '-'): new for old, new in renamed.items()}
    result, said = [], set()
    for word in words:
        name, mark, value = word.partition('=')
        new = known.get(name.replace('_', '-')) if name.startswith('--') else None
        if new and new not in said:
            said.add(new)
            sys.stderr.write(f'{program}: {name} is now {new}; the old name ends with release {REMOVAL_RELEASE}\n')
        result.append(f'{new}{mark}{value}' if new else word)
    return result


def _rewrite_switches(arguments: type, words: Sequence[str]) -> list[str]:
    """Give switches of three states the values that tyro expects of ``bool | None``."""
    switches = {_spelled(field.name) for field in fields(arguments)
                if get_type_hints(arguments)[field.name] == bool | None}
    result: list[str] = []
    for word in words:
        name = word.replace('_', '-')
        if name in switches:
            result += [name, 'True']
        elif name.startswith('--no-') and f'--{name[5:]}' in switches:
            result += [f'--{name[5:]}', 'False']
        else:
            result.append(word)
    return result


def _check_flags(arguments: type, words: Sequence[str]) -> None:
    """Check that each flag exists, before a mistyped one is taken for a missing value.

    Raises:
        UsageError: one does not exist, or is a switch with a value.
    """
    known = list(_flags(arguments))
    switches = {flag for name, hint in get_type_hints(arguments).items() if hint is bool
                for flag in (_spelled(name), _spelled(f'no_{name}'))}
    for word in words:
        name = word.partition('=')[0]
        if name.startswith('--') and not name.startswith('--tyro-') and name.replace('_', '-') not in known:
            raise UsageError(f'there is no {name}{did_you_mean(name, known)} (see --help)')
        if '=' in word and name.replace('_', '-') in switches:
            raise UsageError(f'{name} takes no value (see --help)')


def _sentence(event: _errors.ParseErrorEvent) -> str:
    """Return what is wrong in one sentence; empty where tyro's own text has to do."""
    match event:
        case _errors.MissingArgs():
            return f'missing: {", ".join(_name(each.arg) for each in event.missing_arguments)} (see --help)'
        case _errors.UnrecognizedArgs():
            return f'unexpected word {event.tokens[0]!r} (see --help)'
        case _errors.InvalidChoice():
            near = did_you_mean(event.value, event.choices)
            return (f'{_name(event.argument)} is {event.value!r}{near or ";"} '
                    f'{"Expected" if near else "expected"} one of: {", ".join(event.choices)}')
        case _errors.BadValue():
            return f'{_name(event.argument)} has no value (see --help)'
        case _errors.InstantiationFailure():
            found = _NOT_A_NUMBER.search(event.message)
            if found and event.argument is not None:
                kind = 'a whole number' if found[1].startswith('int') else 'a number'
                return f'{_name(event.argument)} is {found["value"]}; expected {kind}'
            return event.message
    return ''


def _name(argument: Any) -> str:
    """Return how an argument is typed: its flag, or the placeholder of a positional one."""
    return str(argument.lowered.metavar) if argument.is_positional() else _spelled(argument.field.extern_name)


def _flags(arguments: type) -> Iterator[str]:
    """Yield each flag of a program, aliases and negations included."""
    yield '--help'
    for name, hint in get_type_hints(arguments, include_extras=True).items():
        configs = [each for each in get_args(hint) if hasattr(each, 'aliases')]
        if tyro.conf.Positional not in get_args(hint):
            yield next((f'--{each.name}' for each in configs if each.name), _spelled(name))
            if bool in (hint, *get_args(hint)):
                yield f'--no-{name.replace("_", "-")}'
        for config in configs:
            yield from config.aliases or ()


def _spelled(field: str) -> str:
    return '--' + field.replace('_', '-')
