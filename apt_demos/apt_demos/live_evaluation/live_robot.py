"""A live graph as its user has it: services to ask, topics to see.

Who is evaluated or shown with it is not known here.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from apt_msgs.srv import SetPrompt
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import MarkerArray

from apt_bringup.session import Session
from apt_policy.core import topics
from apt_policy.core.contract import RobotContract
from apt_policy.core.errors import UserError
from apt_policy.core.stream_spec import Role, StreamKind
from apt_policy.core.stream_table import StreamTable
from apt_policy.ros.qos import profile, subscribe
from apt_sim.tasks.eyes import Eyes
from apt_sim.tasks.task import Situation

SIMULATOR, POLICY = 'aloha_sim', 'apt_policy'
# A request that DDS lost is made again; none does harm when it comes twice.
_ANSWER_S = 3.0
_PATIENCE_S = 60.0
# Of the robot's time, until everything that belongs to the episode before has arrived.
_SETTLE_NS = 300_000_000


class LiveError(UserError, RuntimeError):
    """A graph that does not do what it is asked; the message names node and request."""


class LiveRobot(Node):
    """A node beside the graph's own."""

    def __init__(self, contract: RobotContract, session: Session, *,
                 give_up: Callable[[], bool] = lambda: False) -> None:
        """``rclpy`` is initialised; ``give_up`` is asked in every wait, and ends it."""
        super().__init__('trials')
        self._session, self._give_up = session, give_up
        self._eyes = Eyes(contract)
        self.spinner = SingleThreadedExecutor()
        self.spinner.add_node(self)
        self._seeds = self.create_client(SetParameters, f'{SIMULATOR}/set_parameters')
        self._resets = self.create_client(Trigger, f'{SIMULATOR}/reset')
        self._prompts = self.create_client(SetPrompt, f'{POLICY}/set_prompt')
        self._enables = self.create_client(SetBool, f'{POLICY}/enable')
        streams = StreamTable(contract)
        for name in contract.arms:
            subscribe(self, streams.find(StreamKind.JOINT_STATE, name), partial(self._eyes.take_joints, name))
        self.create_subscription(MarkerArray, topics.SIM_OBJECTS, self._eyes.take_objects, profile(Role.STATUS))

    def reset(self, seed: int) -> Situation:
        """Begin the scene of a seed, with the policy standing still."""
        self.enable(False)
        value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=seed)
        self._ask(self._seeds, SetParameters.Request(parameters=[Parameter(name='reset_seed', value=value)]),
                  lambda answer: '' if answer.results[0].successful else answer.results[0].reason)
        self._ask(self._resets, Trigger.Request(), lambda answer: '' if answer.success else answer.message)
        return self.look(after_ns=self._eyes.objects_ns + _SETTLE_NS)

    def instruct(self, instruction: str) -> None:
        """Give the policy an instruction."""
        self._ask(self._prompts, SetPrompt.Request(prompt=instruction),
                  lambda answer: '' if answer.accepted else answer.message)

    def enable(self, enabled: bool) -> None:
        """Let the arms move, or stop them."""
        self._ask(self._enables, SetBool.Request(data=enabled),
                  lambda answer: '' if answer.success else answer.message)

    def look(self, *, after_ns: int) -> Situation:
        """The first situation after an instant of the robot's clock."""
        self.until(lambda: self._eyes.objects_ns > after_ns and self._situation() is not None,
                    'joint states and sim/objects')
        now = self._situation()
        assert now is not None, 'waited for'
        return now

    def close(self) -> None:
        """Leave the graph."""
        self.spinner.shutdown()
        self.destroy_node()

    def _situation(self) -> Situation | None:
        return self._eyes.situation(self._eyes.objects_ns)

    def _ask(self, client: Client, request: Any, refusal: Callable[[Any], str]) -> None:
        what, deadline_s = client.srv_name, time.monotonic() + _PATIENCE_S
        self.until(client.service_is_ready, what)
        while time.monotonic() < deadline_s:
            future: Any = client.call_async(request)
            self.spinner.spin_until_future_complete(future, timeout_sec=_ANSWER_S)
            if future.done():
                if reason := refusal(future.result()):
                    raise LiveError(f'{what} refused: {reason}')
                return
            client.remove_pending_request(future)
        raise LiveError(f'{what} did not answer within {_PATIENCE_S:.0f} s')

    def until(self, done: Callable[[], bool], what: str) -> None:
        """Let messages come in until ``done``.

        Raises:
            LiveError: a node ended, it takes too long, or given up.
        """
        deadline_s = time.monotonic() + _PATIENCE_S
        while not done():
            if ended := self._session.ended:
                names = ', '.join(f'{name} (status {status})' for name, status in ended.items())
                raise LiveError(f'{names} ended while waiting for {what}; its last lines are above')
            if self._give_up():
                raise LiveError(f'given up while waiting for {what}')
            if time.monotonic() > deadline_s:
                raise LiveError(f'waited {_PATIENCE_S:.0f} s for {what}')
            self.spinner.spin_once(timeout_sec=0.05)
