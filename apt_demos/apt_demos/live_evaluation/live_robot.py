"""Client of a live graph: services and topics that a user has."""

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
from apt_sim.tasks.ground_truth_buffer import GroundTruthBuffer
from apt_sim.tasks.task import GroundTruth

SIMULATOR, POLICY = 'aloha_sim', 'apt_policy'
# A request that DDS lost is sent again; repeating any of them has no further effect.
_RESPONSE_TIMEOUT_S = 3.0
_TIMEOUT_S = 60.0
# Time on the robot's clock after which no message of the previous episode is in flight [ns].
_SETTLE_NS = 300_000_000


class LiveGraphError(UserError, RuntimeError):
    """Failed or unanswered request to a live graph; the message names node and request."""


class LiveRobot(Node):
    """Client node beside the graph's own."""

    def __init__(self, contract: RobotContract, session: Session, *,
                 give_up: Callable[[], bool] = lambda: False) -> None:
        """Create clients and subscriptions; ``rclpy`` must be initialised.

        Args:
            contract: description of the robot.
            session: running graph.
            give_up: ends every wait when it returns True.
        """
        super().__init__('trials')
        self._session, self._give_up = session, give_up
        self._ground_truth = GroundTruthBuffer(contract)
        self.spinner = SingleThreadedExecutor()
        self.spinner.add_node(self)
        self._seeds = self.create_client(SetParameters, f'{SIMULATOR}/set_parameters')
        self._resets = self.create_client(Trigger, f'{SIMULATOR}/reset')
        self._prompts = self.create_client(SetPrompt, f'{POLICY}/set_prompt')
        self._enables = self.create_client(SetBool, f'{POLICY}/enable')
        streams = StreamTable(contract)
        for name in contract.arms:
            subscribe(self, streams.find(StreamKind.JOINT_STATE, name), partial(self._ground_truth.update_joints, name))
        self.create_subscription(MarkerArray, topics.SIM_OBJECTS, self._ground_truth.update_objects,
                                 profile(Role.STATUS))

    def reset(self, seed: int) -> GroundTruth:
        """Disable the policy, reset the scene to a seed and return its ground truth.

        Raises:
            LiveGraphError: a node ended, or does not respond.
        """
        self.enable(False)
        value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=seed)
        self._ask(self._seeds, SetParameters.Request(parameters=[Parameter(name='reset_seed', value=value)]),
                  lambda answer: '' if answer.results[0].successful else answer.results[0].reason)
        self._ask(self._resets, Trigger.Request(), lambda answer: '' if answer.success else answer.message)
        return self.wait_for_state(after_ns=self._ground_truth.objects_ns + _SETTLE_NS)

    def set_prompt(self, instruction: str) -> None:
        """Set the policy's instruction."""
        self._ask(self._prompts, SetPrompt.Request(prompt=instruction),
                  lambda answer: '' if answer.accepted else answer.message)

    def enable(self, enabled: bool) -> None:
        """Enable or disable the motion of the arms."""
        self._ask(self._enables, SetBool.Request(data=enabled),
                  lambda answer: '' if answer.success else answer.message)

    def wait_for_state(self, *, after_ns: int) -> GroundTruth:
        """Wait for the first ground truth after a time of the robot's clock.

        Args:
            after_ns: time [ns].
        """
        self.wait_until(lambda: self._ground_truth.objects_ns > after_ns and self._latest_state() is not None,
                        'joint states and sim/objects')
        now = self._latest_state()
        assert now is not None, 'waited for'
        return now

    def close(self) -> None:
        """Destroy the node."""
        self.spinner.shutdown()
        self.destroy_node()

    def _latest_state(self) -> GroundTruth | None:
        return self._ground_truth.ground_truth(self._ground_truth.objects_ns)

    def _ask(self, client: Client, request: Any, refusal: Callable[[Any], str]) -> None:
        what, deadline_s = client.srv_name, time.monotonic() + _TIMEOUT_S
        self.wait_until(client.service_is_ready, what)
        while time.monotonic() < deadline_s:
            future: Any = client.call_async(request)
            self.spinner.spin_until_future_complete(future, timeout_sec=_RESPONSE_TIMEOUT_S)
            if future.done():
                if reason := refusal(future.result()):
                    raise LiveGraphError(f'{what} rejected the request: {reason}')
                return
            client.remove_pending_request(future)
        raise LiveGraphError(f'{what} did not respond within {_TIMEOUT_S:.0f} s')

    def wait_until(self, done: Callable[[], bool], what: str) -> None:
        """Process messages until a condition holds.

        Args:
            done: condition.
            what: description of the condition for errors.

        Raises:
            LiveGraphError: a node ended, the wait timed out, or ``give_up`` returned True.
        """
        deadline_s = time.monotonic() + _TIMEOUT_S
        while not done():
            if ended := self._session.ended:
                names = ', '.join(f'{name} (status {status})' for name, status in ended.items())
                raise LiveGraphError(f'{names} ended while waiting for {what}; its last lines are above')
            if self._give_up():
                raise LiveGraphError(f'interrupted while waiting for {what}')
            if time.monotonic() > deadline_s:
                raise LiveGraphError(f'timed out after {_TIMEOUT_S:.0f} s while waiting for {what}')
            self.spinner.spin_once(timeout_sec=0.05)
