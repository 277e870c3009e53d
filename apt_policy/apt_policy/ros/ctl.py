"""``apt-ctl``: control a running policy, where there is no ``ros2`` command.

    apt-ctl prompt "pick up the red cup"
    apt-ctl enable              # let the arms move
    apt-ctl disable             # the arms hold their last command
    apt-ctl reset               # clear plan, fault and last target
    apt-ctl status
    apt-ctl                     # interactive: one verb per line, Enter alone stops

The same as calling the services by hand. Discovery follows ROS_DOMAIN_ID and the other variables of ROS 2. The command
stops a robot, so it starts fast: it imports argparse, not tyro, and no part of the policy.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NoReturn

from apt_policy.console import explain_missing
from apt_policy.core.errors import did_you_mean

if TYPE_CHECKING:
    from apt_policy.ros.policy_client import PolicyClient

_SHELL = 'shell'
_FLAGS = ('--help', '--namespace', '--timeout')
_DEFAULT_TIMEOUT_S = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    """Send one request, or stay; return 0 when done, 1 if refused or not answered, 2 for usage, 130 after Ctrl-C."""
    with explain_missing('apt-ctl'):
        return _run(list(sys.argv[1:] if argv is None else argv))


def _run(words: Sequence[str]) -> int:
    import rclpy
    from rclpy.exceptions import InvalidNamespaceException
    from rclpy.signals import SignalHandlerOptions

    from apt_policy.ros.policy_client import VERBS, PolicyClient, RequestError
    parser = _parser()
    # Before argparse, which takes the word after a mistyped flag for the verb.
    for flag in (word.partition('=')[0] for word in takewhile(lambda word: word != '--', words)):
        if flag.startswith('--') and flag not in _FLAGS:
            parser.error(f'there is no {flag}{did_you_mean(flag, _FLAGS)} (see --help)')
    arguments = parser.parse_args(words)
    if not arguments.timeout > 0.0:
        parser.error(f'--timeout is {arguments.timeout:g}; expected more than 0 s')
    if arguments.request is None and not sys.stdin.isatty():
        parser.error(f'no verb; expected one of {", ".join(VERBS)}, or {_SHELL} to read verbs from standard input')
    # Ctrl-C stays Python's own, so that it is not mistaken for a policy that does not answer.
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        client = PolicyClient(namespace=arguments.namespace, timeout_s=arguments.timeout)
    except InvalidNamespaceException as error:
        rclpy.try_shutdown()
        parser.error(f'--namespace {arguments.namespace!r} is not valid: {error}')
    try:
        if arguments.request in (None, _SHELL):
            return _run_shell(client)
        sys.stdout.write(f'{client.perform(arguments.request, getattr(arguments, "text", ""))}\n')
    except RequestError as error:
        sys.stderr.write(f'apt-ctl: {error}\n')
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        client.destroy_node()
        rclpy.try_shutdown()
    return 0


def _run_shell(client: 'PolicyClient') -> int:
    from apt_policy.ros.ctl_shell import CtlShell

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    return CtlShell(client, descriptor=sys.stdin.fileno(), prompt='> ' if sys.stdin.isatty() else '',
                    write=write).run()


class _Parser(argparse.ArgumentParser):
    """Parser without abbreviations whose errors are one line, and name the nearest verb."""

    def __init__(self, **settings: Any) -> None:
        """Create a parser; ``settings`` are those of argparse."""
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and end the program with status 2."""
        from apt_policy.ros.policy_client import VERBS
        if verb := re.search(r"argument verb: invalid choice: '([^']*)'", message):
            near = did_you_mean(verb[1], (*VERBS, _SHELL))
            message = f'there is no verb {verb[1]!r}' + (near or f'; expected one of {", ".join(VERBS)}')
        self.exit(2, f'apt-ctl: {message}\n')


def _parser() -> argparse.ArgumentParser:
    from apt_policy.ros.policy_client import VERBS
    parser = _Parser(
        prog='apt-ctl', description='Send one request to a running policy; without a verb: stay and take one per line.')
    _add_flags(parser, namespace='', timeout=_DEFAULT_TIMEOUT_S)
    # A flag that is absent after the verb must not undo the same one before it.
    common = _Parser(add_help=False)
    _add_flags(common, namespace=argparse.SUPPRESS, timeout=argparse.SUPPRESS)
    requests = parser.add_subparsers(dest='request', metavar='verb')
    for verb, description in VERBS.items():
        request = requests.add_parser(verb, help=description, parents=[common])
        if verb == 'prompt':
            request.add_argument('text')
    requests.add_parser(_SHELL, help='stay: one verb per line, Enter alone stops the arms', parents=[common])
    return parser


def _add_flags(parser: argparse.ArgumentParser, *, namespace: str, timeout: float | str) -> None:
    parser.add_argument('--namespace', default=namespace, help='namespace of the policy, as in its launch arguments')
    parser.add_argument('--timeout', type=float, default=timeout, metavar='S',
                        help=f'time to wait for the policy [s] (default: {_DEFAULT_TIMEOUT_S:g})')


if __name__ == '__main__':
    sys.exit(main())
