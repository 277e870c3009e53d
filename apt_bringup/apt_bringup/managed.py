"""Takes managed nodes through their life cycle over the services that ``lifecycle_msgs`` defines.

It goes by the state that a node reports, not by the answers to its requests: on a busy
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
# Nodes on this machine find each other within a fraction of it.
_DISCOVERY_S = 1.5
# Loading the model from a cold disk: billions of weights take minutes.
_BECOMES_ACTIVE_S = 900.0
_NEXT = {State.PRIMARY_STATE_UNCONFIGURED: Transition.TRANSITION_CONFIGURE,
         State.PRIMARY_STATE_INACTIVE: Transition.TRANSITION_ACTIVATE}
_NAMES = {Transition.TRANSITION_CONFIGURE: 'configure', Transition.TRANSITION_ACTIVATE: 'activate'}


class BringUpError(UserError, RuntimeError):
    """A managed node that did not become active; the message names node and transition."""


class BrokenOff(BringUpError):
    """Given up from outside: a signal, or the death of the node's process."""


def running_nodes(asker: Node, executor: Executor, names: Collection[str]) -> list[str]:
    """Those of the fully qualified ``names`` that a node on this network has already; [] only after a while.

    Args:
        asker: any node of this process, spun by ``executor`` meanwhile.
    """
    deadline = time.monotonic() + _DISCOVERY_S
    while not (found := [name for name in names if _count(asker, name)]) and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.1)
    return found


def _count(asker: Node, name: str) -> int:
    return sum(name == f'{namespace.rstrip("/")}/{short}' for short, namespace in asker.get_node_names_and_namespaces())


def bring_up(asker: Node, executor: Executor, name: str, *, give_up: Callable[[], bool]) -> None:
    """Configure, then activate, the node with fully qualified name ``name``; returns once it is active.

    Args:
        asker: any node of this process, spun by ``executor`` meanwhile.
        give_up: asked all the time; True (a signal, the node's death) ends the wait.

    Raises:
        BringUpError: no such node, more than one, or a transition that it refuses (its log says why).
        BrokenOff: ``give_up`` said so.
    """
    began = time.monotonic()
    with _Asker(asker, executor, name, give_up) as node:
        while (state := node.state()) != State.PRIMARY_STATE_ACTIVE:
            if _count(asker, name) > 1:
                # Each would answer for the other.
                raise BringUpError(f'there are two nodes {name}; end the other one first')
            waited_s = time.monotonic() - began
            if state is None and waited_s > _SERVICE_APPEARS_S and not node.seen:
                raise BringUpError(f'{name} did not appear within {_SERVICE_APPEARS_S:.0f} s')
            if waited_s > _BECOMES_ACTIVE_S:
                raise BringUpError(f'{name} is not active after {waited_s:.0f} s; its state is {state}')
            if state == State.PRIMARY_STATE_FINALIZED:
                raise BringUpError(f'{name} has shut down')
            if state in _NEXT:
                node.change(_NEXT[state])


class _Asker:
    """The two services of one managed node, each question with a limit on its answer."""

    def __init__(self, node: Node, executor: Executor, name: str, give_up: Callable[[], bool]) -> None:
        self.seen = False
        self._node, self._executor, self._name, self._give_up = node, executor, name, give_up
        self._asked: tuple[int, Any] | None = None

    def __enter__(self) -> '_Asker':
        self._changes = self._node.create_client(ChangeState, f'{self._name}/change_state')
        self._states = self._node.create_client(GetState, f'{self._name}/get_state')
        return self

    def __exit__(self, *_: object) -> None:
        self._node.destroy_client(self._changes)
        self._node.destroy_client(self._states)

    def state(self) -> int | None:
        """What the node says of itself; None where it does not answer (yet)."""
        if not self._until(self._states.service_is_ready):
            return None
        future: Any = self._states.call_async(GetState.Request())
        if not self._until(future.done):
            self._states.remove_pending_request(future)
            return None
        self.seen = True
        self._check_refusal()
        return int(future.result().current_state.id)

    def change(self, transition: int) -> None:
        """Ask for a transition, again if an earlier request had no effect."""
        future: Any = self._changes.call_async(ChangeState.Request(transition=Transition(id=transition)))
        self._asked = (transition, future)
        # The state is asked next, so an answer that takes longer (loading a model) is no loss.
        self._until(future.done)
        self._check_refusal()

    def _check_refusal(self) -> None:
        if self._asked is not None and self._asked[1].done() and not self._asked[1].result().success:
            raise BringUpError(f'{self._name} refused to {_NAMES[self._asked[0]]}; its log says why')

    def _until(self, done: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + _ANSWER_S
        while not done():
            if self._give_up():
                raise BrokenOff(f'the start of {self._name} was broken off')
            if time.monotonic() > deadline:
                return False
            self._executor.spin_once(timeout_sec=0.1)
        return True
