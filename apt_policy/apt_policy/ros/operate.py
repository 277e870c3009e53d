"""``apt-operate``: what a person says to a running policy, where there is no ``ros2`` command.

    apt-operate prompt "pick up the red cup"
    apt-operate enable              # let the arms move
    apt-operate disable             # the arms hold their last command
    apt-operate reset               # forget plan, fault and last target
    apt-operate status

The same as calling the services by hand. Discovery follows ROS_DOMAIN_ID and the other variables of ROS 2.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import rclpy
from apt_msgs.msg import PolicyStatus
from apt_msgs.srv import SetPrompt
from rclpy.exceptions import InvalidNamespaceException
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from apt_policy.core import topics
from apt_policy.core.sample import HoldReason
from apt_policy.ros.policy_node import NODE_NAME
from apt_policy.ros.qos import Role, profile

# Python hears of Ctrl-C between two waits only.
_SLICE_S = 0.2


class OperateError(RuntimeError):
    """A policy that is not there, does not answer, or refuses; the message says what."""


def main(words: Sequence[str] | None = None) -> int:
    """Say one thing; the exit status: 0 done, 1 refused or nobody answers, 2 usage, 130 interrupted."""
    parser = _parser()
    options = parser.parse_args(words)
    if not options.timeout > 0.0:
        parser.error(f'--timeout is {options.timeout:g}; expected more than 0 s')
    # Ctrl-C is Python's own, so that it is not taken for a policy that does not answer.
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        operator = Operator(namespace=options.namespace, patience_s=options.timeout)
    except InvalidNamespaceException as error:
        rclpy.try_shutdown()
        parser.error(f'--namespace {options.namespace!r} is none: {error}')
    try:
        sys.stdout.write(f'{_say(operator, options)}\n')
    except OperateError as error:
        sys.stderr.write(f'apt-operate: {error}\n')
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        operator.destroy_node()
        rclpy.try_shutdown()
    return 0


class Operator(Node):
    """One person's voice and ears."""

    def __init__(self, *, namespace: str, patience_s: float) -> None:
        """``patience_s`` is how long to wait for a policy, and for its answer [s]."""
        super().__init__('apt_operate', namespace=namespace or None)
        self._patience_s = patience_s

    def enable(self, enabled: bool) -> str:
        """Let the arms move, or stop them; the policy's own words.

        Raises:
            OperateError: no answer, or no.
        """
        answer = self._call(SetBool, 'enable', SetBool.Request(data=enabled))
        return _words(answer.success, answer.message)

    def reset(self) -> str:
        """Forget plan, fault and last target; likewise."""
        answer = self._call(Trigger, 'reset', Trigger.Request())
        return _words(answer.success, answer.message)

    def prompt(self, text: str) -> str:
        """Give an instruction; likewise."""
        answer = self._call(SetPrompt, 'set_prompt', SetPrompt.Request(prompt=text))
        return _words(answer.accepted, answer.message)

    def status(self) -> str:
        """What it is told to do, and why it holds.

        Raises:
            OperateError: nothing is heard.
        """
        status = self._hear(PolicyStatus, topics.STATUS, Role.STATUS)
        reason = HoldReason(status.hold_reason)
        doing = 'targets flow' if reason is HoldReason.NONE else f'holds: {reason.name}'
        told = '' if reason is HoldReason.NO_PROMPT else f', prompt {self._active_prompt()!r}'
        return (f'{"enabled" if status.enabled else "disabled"}, {doing}{told}, {status.targets_sent} targets sent'
                + (f'\n{status.detail}' if status.detail else ''))

    def _active_prompt(self) -> str:
        try:
            return str(self._hear(String, topics.ACTIVE_PROMPT, Role.LATCHED).data)
        except OperateError:
            return ''

    def _call(self, kind: type, name: str, request: Any) -> Any:
        service = self.resolve_service_name(f'{NODE_NAME}/{name}')
        client = self.create_client(kind, service)
        if not client.wait_for_service(self._patience_s):
            raise OperateError(f'nobody offers {service}; is the policy running, and on this ROS_DOMAIN_ID and '
                               'discovery range?')
        return self._await(client.call_async(request), f'{service} does not answer')

    def _hear(self, kind: type, topic: str, role: Role) -> Any:
        heard = Future()
        self.create_subscription(kind, topic, lambda message: heard.done() or heard.set_result(message), profile(role))
        return self._await(heard, f'nothing is said on {self.resolve_topic_name(topic)}')

    def _await(self, future: Future, otherwise: str) -> Any:
        deadline_s = time.monotonic() + self._patience_s
        while not future.done():
            if time.monotonic() > deadline_s:
                raise OperateError(f'{otherwise} (waited {self._patience_s:g} s)')
            rclpy.spin_until_future_complete(self, future, timeout_sec=_SLICE_S)
        return future.result()


def _words(accepted: bool, message: str) -> str:
    if not accepted:
        raise OperateError(f'refused: {message}')
    return message


def _say(operator: Operator, options: argparse.Namespace) -> str:
    if options.request == 'prompt':
        return operator.prompt(options.text)
    if options.request == 'status':
        return operator.status()
    if options.request == 'reset':
        return operator.reset()
    return operator.enable(options.request == 'enable')


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='apt-operate', description='Say one thing to a running policy.')
    parser.add_argument('--namespace', default='', help='of the policy, as in its launch arguments')
    parser.add_argument('--timeout', type=float, default=5.0, metavar='S', help='wait so long [s] (default: 5)')
    requests = parser.add_subparsers(dest='request', required=True)
    requests.add_parser('enable', help='let the arms move')
    requests.add_parser('disable', help='the arms hold their last command')
    requests.add_parser('reset', help='forget plan, fault and last target')
    requests.add_parser('status', help='what it does, and why it holds')
    requests.add_parser('prompt', help='give an instruction').add_argument('text')
    return parser


if __name__ == '__main__':
    sys.exit(main())
