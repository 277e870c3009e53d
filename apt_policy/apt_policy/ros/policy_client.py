"""Client of a running policy's services and status.

The module is light, because disabling is how a person pauses the arms: it imports neither the policy nor
scipy or torch, and message types only where they are needed.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import SetBool

from apt_policy.core import topics
from apt_policy.core.errors import UserError

VERBS = {
    'enable': 'let the arms move',
    'disable': 'the arms hold their last command',
    'reset': 'clear plan, fault and last target',
    'status': 'show the state, and why the arms hold',
    'prompt': 'give an instruction',
}
"""Requests by verb, with a description."""

_HINT = 'Check that the policy node runs, and that ROS_DOMAIN_ID and discovery range match.'
# Short enough that an urgent request preempts a waiting one at once.
_SPIN_S = 0.05
# Discovery takes some tenths of a second; a look at the graph costs microseconds.
_POLL_S = 0.01
# On a busy machine the middleware may drop the answer to a client that it has only just discovered.
_RESEND_S = 1.0


class RequestError(UserError, RuntimeError):
    """Request that the policy refuses or does not answer."""


class RequestPreempted(Exception):
    """Request that was given up because a more urgent one came while it waited for its answer."""


def _never() -> bool:
    return False


class PolicyClient(Node):
    """Node that sends requests to one policy and waits for its answers, from one thread."""

    def __init__(self, *, namespace: str, timeout_s: float) -> None:
        """Create the node.

        Args:
            namespace: namespace of the policy; empty for none.
            timeout_s: longest time to wait for a policy, and for its answer [s].
        """
        # Endpoints of parameters and logs would cost time to set up and discover, and are of no use here.
        super().__init__('apt_operate', namespace=namespace or None, start_parameter_services=False,
                         enable_rosout=False)
        self._timeout_s = timeout_s
        self._clients_of: dict[str, Client] = {}
        self.should_preempt: Callable[[], bool] = _never
        """Function that is called while a request waits; True gives the request up with :class:`RequestPreempted`."""

    def perform(self, verb: str, text: str = '') -> str:
        """Send one of the requests of :data:`VERBS`.

        Args:
            verb: the request.
            text: the instruction, for ``prompt``.

        Returns:
            Answer of the policy, for the terminal.

        Raises:
            RequestError: the policy is not there, does not answer, or refuses.
            RequestPreempted: :attr:`should_preempt` returned True.
        """
        if verb == 'prompt':
            return self.prompt(text)
        if verb == 'status':
            return self.status()
        if verb == 'reset':
            return self.reset()
        return self.enable(verb == 'enable')

    def enable(self, enabled: bool) -> str:
        """Let the arms move, or stop them; see :meth:`perform`."""
        answer = self._call(SetBool, 'enable', SetBool.Request(data=enabled), repeat=not enabled)
        return _answer_text(answer.success, answer.message)

    def reset(self) -> str:
        """Clear plan, fault and last target; see :meth:`perform`."""
        from std_srvs.srv import Trigger
        answer = self._call(Trigger, 'reset', Trigger.Request())
        return _answer_text(answer.success, answer.message)

    def prompt(self, text: str) -> str:
        """Give an instruction; see :meth:`perform`."""
        from apt_msgs.srv import SetPrompt
        answer = self._call(SetPrompt, 'set_prompt', SetPrompt.Request(prompt=text))
        return _answer_text(answer.accepted, answer.message)

    def status(self) -> str:
        """Return what the policy does and why it holds; see :meth:`perform`."""
        from apt_msgs.msg import PolicyStatus

        from apt_policy.core.sample import HoldReason
        from apt_policy.ros.qos import Role
        status = self._receive_one(PolicyStatus, topics.STATUS, Role.STATUS)
        reason = HoldReason(status.hold_reason)
        doing = 'targets flow' if reason is HoldReason.NONE else f'holds: {reason.name}'
        prompt = '' if reason is HoldReason.NO_PROMPT else f', prompt {self._active_prompt()!r}'
        return (f'{"enabled" if status.enabled else "disabled"}, {doing}{prompt}, {status.targets_sent} targets sent'
                + (f'\n{status.detail}' if status.detail else ''))

    def start_discovery(self) -> None:
        """Begin to discover the policy, so that the first request to stop finds it at once."""
        self._client(SetBool, 'enable')

    def _active_prompt(self) -> str:
        from std_msgs.msg import String

        from apt_policy.ros.qos import Role
        try:
            return str(self._receive_one(String, topics.ACTIVE_PROMPT, Role.LATCHED).data)
        except RequestError:
            return ''

    def _client(self, kind: type, name: str) -> Client:
        # One per service for good: requests of one client arrive in the order in which they were sent.
        if name not in self._clients_of:
            self._clients_of[name] = self.create_client(
                kind, self.resolve_service_name(f'{topics.POLICY_NODE}/{name}'))
        return self._clients_of[name]

    def _call(self, kind: type, name: str, request: Any, *, repeat: bool = False) -> Any:
        """Send a request and wait for its answer; ``repeat`` one that may be carried out more than once."""
        client = self._client(kind, name)
        service = client.srv_name
        deadline_s = time.monotonic() + self._timeout_s
        while not client.service_is_ready():
            self._check_waiting(deadline_s, f'service {service} not available after {self._timeout_s:g} s. {_HINT}')
            time.sleep(_POLL_S)
        deadline_s = time.monotonic() + self._timeout_s
        sent: list[Future] = []
        due_s = time.monotonic()
        try:
            while not (answered := [future for future in sent if future.done()]):
                if time.monotonic() >= due_s:
                    sent.append(client.call_async(request))
                    due_s = time.monotonic() + _RESEND_S if repeat else math.inf
                self._check_waiting(deadline_s, f'{service} did not answer within {self._timeout_s:g} s. Run apt-ctl '
                                        'status to see whether the request was carried out.')
                rclpy.spin_once(self, timeout_sec=_SPIN_S)
        finally:
            for future in sent:
                client.remove_pending_request(future)
        return answered[0].result()

    def _receive_one(self, kind: type, topic: str, role: Any) -> Any:
        from apt_policy.ros.qos import profile
        received: list[Any] = []
        subscription = self.create_subscription(kind, topic, received.append, profile(role))
        deadline_s = time.monotonic() + self._timeout_s
        try:
            while not received:
                self._check_waiting(deadline_s, f'no message on {self.resolve_topic_name(topic)} after '
                                        f'{self._timeout_s:g} s. {_HINT}')
                rclpy.spin_once(self, timeout_sec=_SPIN_S)
        finally:
            self.destroy_subscription(subscription)
        return received[0]

    def _check_waiting(self, deadline_s: float, timeout_text: str) -> None:
        if self.should_preempt():
            raise RequestPreempted
        if time.monotonic() > deadline_s:
            raise RequestError(timeout_text)


def _answer_text(accepted: bool, message: str) -> str:
    if not accepted:
        raise RequestError(f'refused: {message}')
    return message
