"""Arguments of a launch, as ``name:=value``: declared once, checked before anything starts.

Serves ``ros2 launch`` (which declares them from :data:`ALOHA`) and the runner that replaces
it; knows nothing of nodes.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from apt_policy.core.errors import UserError
from apt_policy.moved import current_checkpoint

BOOLEAN = ('true', 'false')


class ArgumentError(UserError, ValueError):
    """An argument that cannot be used; the message names it and what is valid."""


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One launch argument."""

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()
    is_path: bool = False
    """A file or a folder, which must exist unless the value is empty."""


ALOHA = (
    Argument(name='robot', default='sim', choices=('sim', 'aloha'),
             description='the simulated ALOHA, or the real one with its Interbotix drivers'),
    Argument(name='prompt', default='', description='first instruction; empty waits for one on apt/prompt'),
    Argument(name='checkpoint', default='', is_path=True,
             description='trained weights, a file or a folder; empty runs an untrained model'),
    Argument(name='vlm', default='',
             description='Qwen3-VL by hub name or folder, in place of the checkpoint\'s'),
    Argument(name='device', default='',
             description='where the model runs: auto, cpu, cuda or cuda:N; empty takes the parameter file\'s'),
    Argument(name='contract', default='', is_path=True,
             description='robot contract; empty takes the shipped one of the robot'),
    Argument(name='params_file', default='', is_path=True,
             description='node parameters; empty takes the shipped policy.yaml, in simulation with worker_nice 10 and '
                         'replan_period_s 0.5'),
    Argument(name='namespace', default='',
             description='namespace of all nodes and topics; /tf, /tf_static, /clock and /diagnostics move into it '
                         'too, so that two robots can share a network'),
    Argument(name='drivers', default='true', choices=BOOLEAN,
             description='start the Interbotix drivers too; false where they run already (robot:=aloha)'),
    Argument(name='use_cameras', default='true', choices=BOOLEAN,
             description='start the camera drivers (on the robot), or render cameras (in simulation)'),
    Argument(name='viewer', default='false', choices=BOOLEAN,
             description='open MuJoCo\'s viewer (simulation)'),
    Argument(name='speed', default='1.0',
             description='simulated seconds per second (simulation); less on a slow machine'),
    Argument(name='seed', default='0', description='of the scene (simulation) and of the policy\'s noise'),
)

_SHARED = ('contract', 'namespace', 'use_cameras', 'viewer', 'speed')

DEMONSTRATION = (
    Argument(name='skills', default='pick,place',
             description='what to demonstrate, separated by commas: pick, place, hand_over, push'),
    Argument(name='episodes', default='0',
             description='successful demonstrations after which the demonstrator ends; 0 goes on for ever'),
    Argument(name='seed', default='0', description='of the first scene; each further one takes the next'),
    Argument(name='await_recorder', default='false', choices=BOOLEAN,
             description='begin only when somebody listens to the episode marks'),
    Argument(name='width', default='320', description='width of the images [px]'),
    Argument(name='height', default='240', description='height of the images [px]'),
    *(argument for argument in ALOHA if argument.name in _SHARED),
)


def resolve(given: Mapping[str, str], declared: Sequence[Argument] = ALOHA) -> dict[str, str]:
    """Defaults filled in, everything checked; a checkpoint of an old place is the one at its new place.

    Raises:
        ArgumentError: an unknown name (with the nearest valid one), a value that is not a choice, or a path that does
            not exist.
    """
    known = {argument.name: argument for argument in declared}
    values = {name: _current(name, value) for name, value in given.items()}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f'did you mean {near[0]!r}?' if near else f'there are {", ".join(known)}'
            raise ArgumentError(f'no argument {name!r}; {hint}')
        choices = known[name].choices
        if choices and value not in choices:
            raise ArgumentError(f'{name} is {value!r}, expected one of {", ".join(choices)}')
        if known[name].is_path and value and not Path(value).exists():
            raise ArgumentError(f'{name} is {value!r}, but there is no file or folder {Path(value).absolute()}')
    return {name: values.get(name, argument.default) for name, argument in known.items()}


def _current(name: str, value: str) -> str:
    return str(current_checkpoint(value)) if name == 'checkpoint' and value else value


def parse(words: Iterable[str]) -> dict[str, str]:
    """``['robot:=sim']`` as ``{'robot': 'sim'}``.

    Raises:
        ArgumentError: a word that is not ``name:=value``, or a name given twice.
    """
    given: dict[str, str] = {}
    for word in words:
        name, separator, value = word.partition(':=')
        if not separator or not name:
            raise ArgumentError(f'{word!r} is not of the form name:=value')
        if name in given:
            raise ArgumentError(f'{name} is given twice: {given[name]!r} and {value!r}')
        given[name] = value
    return given


def describe(declared: Sequence[Argument] = ALOHA) -> str:
    """The arguments as a Markdown table."""
    rows = ['| argument | default | meaning |', '|---|---|---|']
    for argument in declared:
        choices = f' (`{"`, `".join(argument.choices)}`)' if argument.choices else ''
        default = f'`{argument.default}`' if argument.default else ''
        rows.append(f'| `{argument.name}` | {default} | {argument.description}{choices} |')
    return '\n'.join(rows) + '\n'
