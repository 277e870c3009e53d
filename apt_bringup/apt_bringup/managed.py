"""Bring-up of managed nodes over the services that ``lifecycle_msgs`` defines.

It follows the state that a node reports, not the answers to its requests: on a busy
machine DDS can lose a request or an answer while two processes still discover each other.
"""

import time
from collections.abc import Callable, Collection
from typing import Any

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import Executor
from rclpy.node import Node

from apt_policy.core.errors import UserError

_ANSWER_S = 2.0
_SERVICE_APPEARS_S = 30.0
# Nodes on one machine discover each other within a fraction of it.
_DISCOVERY_S = 1.5
# Billions of weights take minutes to load from a cold disk.
_BECOMES_ACTIVE_S = 900.0
_NEXT = {State.PRIMARY_STATE_UNCONFIGURED: Transition.TRANSITION_CONFIGURE,
         State.PRIMARY_STATE_INACTIVE: Transition.TRANSITION_ACTIVATE}
_NAMES = {Transition.TRANSITION_CONFIGURE: 'configure', Transition.TRANSITION_ACTIVATE: 'activate'}


class BringUpError(UserError, RuntimeError):
    """Managed node that did not become active."""


class BringUpAbortedError(BringUpError):
    """Bring-up that was aborted by a signal, or because the node's process ended."""


def running_nodes(client: Node, executor: Executor, names: Collection[str]) -> list[str]:
    """Return those of the fully qualified ``names`` that nodes on this network have, after a time for discovery.

    Args:
        client: any node of this process, which ``executor`` spins meanwhile.
        executor: executor of ``client``.
        names: names to look for.
    """
    deadline = time.monotonic() + _DISCOVERY_S
    while not (found := [name for name in names if _count(client, name)]) and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.1)
    return found


def _count(client: Node, name: str) -> int:
    return sum(name == f'{namespace.rstrip("/")}/{short}'
               for short, namespace in client.get_node_names_and_namespaces())


def bring_up(client: Node, executor: Executor, name: str, *, give_up: Callable[[], bool]) -> None:
    """Configure and activate a node, and return once it is active.

    Args:
        client: any node of this process, which ``executor`` spins meanwhile.
        executor: executor of ``client``.
        name: fully qualified name of the node.
        give_up: function that is called all the time; True (a signal, the end of the node's process) aborts.

    Raises:
        BringUpError: no such node, more than one, or a transition that it refuses.
        BringUpAbortedError: ``give_up`` returned True.
    """
    began = time.monotonic()
    with _LifecycleClient(client, executor, name, give_up) as node:
        while (state := node.state()) != State.PRIMARY_STATE_ACTIVE:
            if _count(client, name) > 1:
                # The answer of one would count as that of the other.
                raise BringUpError(f'two nodes are named {name}: end the other one first')
            waited_s = time.monotonic() - began
            if state is None and waited_s > _SERVICE_APPEARS_S and not node.has_answered:
                raise BringUpError(f'{name} did not appear within {_SERVICE_APPEARS_S:.0f} s: check its log')
            if waited_s > _BECOMES_ACTIVE_S:
                raise BringUpError(f'{name} is not active after {waited_s:.0f} s; its state is {state}')
            if state == State.PRIMARY_STATE_FINALIZED:
                raise BringUpError(f'{name} has shut down')
            if state in _NEXT:
                node.change(_NEXT[state])


class _LifecycleClient:
    """Client of the two services of one managed node, with a limit on each answer."""

    def __init__(self, node: Node, executor: Executor, name: str, give_up: Callable[[], bool]) -> None:
        self.has_answered = False
        self._node, self._executor, self._name, self._give_up = node, executor, name, give_up
        self._requested: tuple[int, Any] | None = None

    def __enter__(self) -> '_LifecycleClient':
        self._changes = self._node.create_client(ChangeState, f'{self._name}/change_state')
        self._states = self._node.create_client(GetState, f'{self._name}/get_state')
        return self

    def __exit__(self, *_: object) -> None:
        self._node.destroy_client(self._changes)
        self._node.destroy_client(self._states)

    def state(self) -> int | None:
        """Return the state that the node reports; None if it does not answer (yet)."""
        if not self._wait_until(self._states.service_is_ready):
            return None
        future: Any = self._states.call_async(GetState.Request())
        if not self._wait_until(future.done):
            self._states.remove_pending_request(future)
            return None
        self.has_answered = True
        self._check_refusal()
        return int(future.result().current_state.id)

    def change(self, transition: int) -> None:
        """Request a transition, again if an earlier request had no effect."""
        future: Any = self._changes.call_async(ChangeState.Request(transition=Transition(id=transition)))
        self._requested = (transition, future)
        # The state is read next, so an answer that takes longer (loading a model) may be missed.
        self._wait_until(future.done)
        self._check_refusal()

    def _check_refusal(self) -> None:
        if self._requested is not None and self._requested[1].done() and not self._requested[1].result().success:
            raise BringUpError(f'{self._name} refused to {_NAMES[self._requested[0]]}: see its log')

    def _wait_until(self, done: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + _ANSWER_S
        while not done():
            if self._give_up():
                raise BringUpAbortedError(f'bring-up of {self._name} aborted')
            if time.monotonic() > deadline:
                return False
            self._executor.spin_once(timeout_sec=0.1)
        return True
