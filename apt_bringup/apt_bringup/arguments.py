"""Launch arguments, as ``name:=value``: declared once, checked before anything starts.

``ros2 launch`` declares them from :data:`ALOHA`; the runner that replaces it reads them here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from apt_policy.core.errors import UserError, did_you_mean
from apt_policy.moved import current_checkpoint

BOOLEAN = ('true', 'false')


class ArgumentError(UserError, ValueError):
    """Launch argument that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Argument:
    """Launch argument."""

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()
    is_path: bool = False
    """True for a file or a folder, which must exist unless the value is empty."""


ALOHA = (
    Argument(name='robot', default='sim', choices=('sim', 'aloha'),
             description='simulated ALOHA, or the real one with its Interbotix drivers'),
    Argument(name='prompt', default='', description='first instruction; empty waits for one on apt/prompt'),
    Argument(name='checkpoint', default='', is_path=True,
             description='trained weights, a file or a folder; empty runs an untrained model'),
    Argument(name='vlm', default='',
             description='Qwen3-VL by hub name or folder; empty takes that of the checkpoint'),
    Argument(name='device', default='',
             description='device of the model: auto, cpu, cuda or cuda:N; empty takes that of the parameter file'),
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
             description='open the viewer of MuJoCo (simulation)'),
    Argument(name='speed', default='1.0',
             description='simulated seconds per second (simulation); less on a slow machine'),
    Argument(name='seed', default='0', description='seed of the scene (simulation) and of the policy\'s noise'),
)

_SHARED = ('contract', 'namespace', 'use_cameras', 'viewer', 'speed')

DEMONSTRATION = (
    Argument(name='skills', default='pick,place',
             description='skills to demonstrate, separated by commas: pick, place, hand_over, push'),
    Argument(name='episodes', default='0',
             description='successful demonstrations after which the demonstrator ends; 0 for no limit'),
    Argument(name='seed', default='0', description='seed of the first scene; each further one takes the next'),
    Argument(name='await_recorder', default='false', choices=BOOLEAN,
             description='begin only when a recorder subscribes to the episode marks'),
    Argument(name='width', default='320', description='width of the images [px]'),
    Argument(name='height', default='240', description='height of the images [px]'),
    *(argument for argument in ALOHA if argument.name in _SHARED),
)


def resolve(given: Mapping[str, str], declared: Sequence[Argument] = ALOHA) -> dict[str, str]:
    """Return all arguments with defaults, checked; a checkpoint at an old place is the one at its new place.

    Raises:
        ArgumentError: an unknown name (with the nearest valid one), a value that is not a choice, or a path that does
            not exist.
    """
    known = {argument.name: argument for argument in declared}
    values = {name: _current(name, value) for name, value in given.items()}
    for name, value in values.items():
        if name not in known:
            near = did_you_mean(name, known)
            raise ArgumentError(f'there is no argument {name!r}' + (near or f'; expected one of {", ".join(known)}'))
        choices = known[name].choices
        if choices and value not in choices:
            near = did_you_mean(value, choices)
            raise ArgumentError(f'{name} is {value!r}' + (near or f'; expected one of {", ".join(choices)}'))
        if known[name].is_path and value and not Path(value).exists():
            raise ArgumentError(f'{name} is {value!r}: there is no file or folder {Path(value).absolute()}')
    return {name: values.get(name, argument.default) for name, argument in known.items()}


def _current(name: str, value: str) -> str:
    return str(current_checkpoint(value)) if name in ('checkpoint', 'vlm') and value else value


def parse(words: Iterable[str]) -> dict[str, str]:
    """Split words such as ``robot:=sim`` into names and values.

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
    """Return the arguments as a Markdown table."""
    rows = ['| argument | default | meaning |', '|---|---|---|']
    for argument in declared:
        choices = f' (`{"`, `".join(argument.choices)}`)' if argument.choices else ''
        default = f'`{argument.default}`' if argument.default else ''
        rows.append(f'| `{argument.name}` | {default} | {argument.description}{choices} |')
    return '\n'.join(rows) + '\n'
