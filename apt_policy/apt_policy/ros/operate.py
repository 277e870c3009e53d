"""``apt-operate``: what a person says to a running policy, where there is no ``ros2`` command.

    apt-operate prompt "pick up the red cup"
    apt-operate enable              # let the arms move
    apt-operate disable             # the arms hold their last command
    apt-operate reset               # forget plan, fault and last target
    apt-operate status
    apt-operate                     # stay: one verb per line, Enter alone stops

The same as calling the services by hand. Discovery follows ROS_DOMAIN_ID and the other variables of ROS 2.
"""

import argparse
import sys
from collections.abc import Sequence

import rclpy
from rclpy.exceptions import InvalidNamespaceException
from rclpy.signals import SignalHandlerOptions

from apt_policy.ros.operator_client import VERBS, OperateError, Operator

_SHELL = 'shell'
_DEFAULT_TIMEOUT_S = 5.0


def main(words: Sequence[str] | None = None) -> int:
    """Say one thing, or stay; the exit status: 0 done, 1 refused or nobody answers, 2 usage, 130 interrupted."""
    parser = _parser()
    options = parser.parse_args(words)
    if not options.timeout > 0.0:
        parser.error(f'--timeout is {options.timeout:g}; expected more than 0 s')
    if options.request is None and not sys.stdin.isatty():
        parser.error(f'no verb; expected one of {", ".join(VERBS)}, or {_SHELL} to read verbs from standard input')
    # Ctrl-C is Python's own, so that it is not taken for a policy that does not answer.
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        operator = Operator(namespace=options.namespace, patience_s=options.timeout)
    except InvalidNamespaceException as error:
        rclpy.try_shutdown()
        parser.error(f'--namespace {options.namespace!r} is none: {error}')
    try:
        if options.request in (None, _SHELL):
            return _stay(operator)
        sys.stdout.write(f'{operator.perform(options.request, getattr(options, "text", ""))}\n')
    except OperateError as error:
        sys.stderr.write(f'apt-operate: {error}\n')
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        operator.destroy_node()
        rclpy.try_shutdown()
    return 0


def _stay(operator: Operator) -> int:
    from apt_policy.ros.operator_shell import OperatorShell

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    return OperatorShell(operator, descriptor=sys.stdin.fileno(), prompt='> ' if sys.stdin.isatty() else '',
                         write=write).run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='apt-operate',
        description='Say one thing to a running policy; without a verb: stay and take one per line.')
    _add_options(parser, namespace='', timeout=_DEFAULT_TIMEOUT_S)
    # After the verb an option that is not given must not undo the same one before it.
    common = argparse.ArgumentParser(add_help=False)
    _add_options(common, namespace=argparse.SUPPRESS, timeout=argparse.SUPPRESS)
    requests = parser.add_subparsers(dest='request', metavar='verb')
    for verb, what in VERBS.items():
        request = requests.add_parser(verb, help=what, parents=[common])
        if verb == 'prompt':
            request.add_argument('text')
    requests.add_parser(_SHELL, help='stay: one verb per line, Enter alone stops the arms', parents=[common])
    return parser


def _add_options(parser: argparse.ArgumentParser, *, namespace: str, timeout: float | str) -> None:
    parser.add_argument('--namespace', default=namespace, help='of the policy, as in its launch arguments')
    parser.add_argument('--timeout', type=float, default=timeout, metavar='S',
                        help=f'wait so long [s] (default: {_DEFAULT_TIMEOUT_S:g})')


if __name__ == '__main__':
    sys.exit(main())
