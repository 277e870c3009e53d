"""Talk to a running policy: the client side of its services and of its status.

Kept light on purpose: disabling is how a person pauses the arms, so this module imports neither the policy nor
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
    'reset': 'forget plan, fault and last target',
    'status': 'what it does, and why it holds',
    'prompt': 'give an instruction',
}
"""What can be asked for, and what it does."""

_HINT = 'is the policy running, and on this ROS_DOMAIN_ID and discovery range?'
# Short enough that a person who changes his mind is heard at once.
_SLICE_S = 0.05
# Discovery takes some tenths of a second; asking costs microseconds.
_LOOK_S = 0.01
# On a busy machine the middleware may drop the answer to a client that it has only just met.
_REPEAT_S = 1.0


class OperateError(UserError, RuntimeError):
    """A policy that is not there, does not answer, or refuses; the message says what."""


class Interrupted(Exception):
    """Something more urgent came up while a request waited for its answer."""


def _never() -> bool:
    return False


class Operator(Node):
    """Ask one policy for things and wait for its answers. Use it from one thread."""

    def __init__(self, *, namespace: str, patience_s: float) -> None:
        """Create the node.

        Args:
            namespace: that of the policy; empty for none.
            patience_s: how long to wait for a policy, and for its answer [s].
        """
        # Neither parameters nor logs are anyone's business here, and their endpoints cost time to set up and discover.
        super().__init__('apt_operate', namespace=namespace or None, start_parameter_services=False,
                         enable_rosout=False)
        self._patience_s = patience_s
        self._clients_of: dict[str, Client] = {}
        self.interrupted: Callable[[], bool] = _never
        """Asked while a request waits; True gives the request up with :class:`Interrupted`."""

    def perform(self, verb: str, text: str = '') -> str:
        """Ask for one of :data:`VERBS`.

        Args:
            text: the instruction, for ``prompt``.

        Returns:
            What to tell the person.

        Raises:
            OperateError: the policy is not there, does not answer, or refuses.
            Interrupted: :attr:`interrupted` said so.
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
        return _words(answer.success, answer.message)

    def reset(self) -> str:
        """Forget plan, fault and last target; see :meth:`perform`."""
        from std_srvs.srv import Trigger
        answer = self._call(Trigger, 'reset', Trigger.Request())
        return _words(answer.success, answer.message)

    def prompt(self, text: str) -> str:
        """Give an instruction; see :meth:`perform`."""
        from apt_msgs.srv import SetPrompt
        answer = self._call(SetPrompt, 'set_prompt', SetPrompt.Request(prompt=text))
        return _words(answer.accepted, answer.message)

    def status(self) -> str:
        """Tell what the policy does and why it holds; see :meth:`perform`."""
        from apt_msgs.msg import PolicyStatus

        from apt_policy.core.sample import HoldReason
        from apt_policy.ros.qos import Role
        status = self._hear(PolicyStatus, topics.STATUS, Role.STATUS)
        reason = HoldReason(status.hold_reason)
        doing = 'targets flow' if reason is HoldReason.NONE else f'holds: {reason.name}'
        told = '' if reason is HoldReason.NO_PROMPT else f', prompt {self._active_prompt()!r}'
        return (f'{"enabled" if status.enabled else "disabled"}, {doing}{told}, {status.targets_sent} targets sent'
                + (f'\n{status.detail}' if status.detail else ''))

    def meet(self) -> None:
        """Begin to discover the policy, so that the first request to stop finds it at once."""
        self._client(SetBool, 'enable')

    def _active_prompt(self) -> str:
        from std_msgs.msg import String

        from apt_policy.ros.qos import Role
        try:
            return str(self._hear(String, topics.ACTIVE_PROMPT, Role.LATCHED).data)
        except OperateError:
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
        deadline_s = time.monotonic() + self._patience_s
        while not client.service_is_ready():
            self._go_on(deadline_s, f'nobody offers {service}; {_HINT}')
            time.sleep(_LOOK_S)
        deadline_s = time.monotonic() + self._patience_s
        sent: list[Future] = []
        due_s = time.monotonic()
        try:
            while not (answered := [future for future in sent if future.done()]):
                if time.monotonic() >= due_s:
                    sent.append(client.call_async(request))
                    due_s = time.monotonic() + _REPEAT_S if repeat else math.inf
                self._go_on(deadline_s, f'{service} does not answer (waited {self._patience_s:g} s); whether it '
                                        'did as asked, the status tells')
                rclpy.spin_once(self, timeout_sec=_SLICE_S)
        finally:
            for future in sent:
                client.remove_pending_request(future)
        return answered[0].result()

    def _hear(self, kind: type, topic: str, role: Any) -> Any:
        from apt_policy.ros.qos import profile
        heard: list[Any] = []
        subscription = self.create_subscription(kind, topic, heard.append, profile(role))
        deadline_s = time.monotonic() + self._patience_s
        try:
            while not heard:
                self._go_on(deadline_s, f'nothing is said on {self.resolve_topic_name(topic)} '
                                        f'(waited {self._patience_s:g} s); {_HINT}')
                rclpy.spin_once(self, timeout_sec=_SLICE_S)
        finally:
            self.destroy_subscription(subscription)
        return heard[0]

    def _go_on(self, deadline_s: float, otherwise: str) -> None:
        if self.interrupted():
            raise Interrupted
        if time.monotonic() > deadline_s:
            raise OperateError(otherwise)


def _words(accepted: bool, message: str) -> str:
    if not accepted:
        raise OperateError(f'refused: {message}')
    return message
