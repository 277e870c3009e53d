"""The demonstrator as a ROS node: it takes the policy's place on the simulated robot.

Targets go out on the policy's topics, so the same IK bridge follows them; instruction and episode marks go
out for whoever records. What happens when is :class:`Cycle`'s decision.
"""

import time
from functools import partial
from typing import Any

import numpy as np
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from apt_policy.core import topics
from apt_policy.core.contract import load_contract
from apt_policy.core.decode import DecodeError
from apt_policy.core.sample import Target
from apt_policy.core.stream_spec import PROMPT_KINDS, Role, StreamKind
from apt_policy.core.stream_table import StreamTable
from apt_policy.ros.params import ParameterSet
from apt_policy.ros.qos import advertise, profile, subscribe
from apt_sim.tasks.cycle import Act, Cycle, Instruct, Mark, Reset
from apt_sim.tasks.draw import NoTaskError
from apt_sim.tasks.eyes import Eyes
from apt_sim.tasks.messages import TargetMessages
from apt_sim.tasks.parameters import DemonstratorParams
from apt_sim.tasks.task import Skill

SIMULATOR = 'aloha_sim'
_REPEAT_S = 5.0
# A request that DDS lost is made again; a reset that comes twice does no harm.
_ANSWER_S = 3.0
# Another publisher may be one that is just ending, and its name takes a moment to get about.
_RIVAL_S = 1.5


class DemonstratorNode(Node):
    """The node ``demonstrator``."""

    def __init__(self) -> None:
        """Read the contract and open every port.

        Raises:
            ParameterError, ContractError, KinematicsError, ValueError: see there.
        """
        super().__init__('demonstrator')
        params = ParameterSet(self, DemonstratorParams).values
        self._await_recorder = params.await_recorder
        self._contract = load_contract(params.contract)
        self._streams = StreamTable(self._contract)
        self._eyes = Eyes(self._contract)
        self._cycle = Cycle(self._contract, [Skill(name) for name in params.skills], seed=params.seed,
                            episodes=params.episodes)
        self._words = TargetMessages(self._contract)
        self._alone_s = time.monotonic()
        self._resetting: tuple[Reset, float, Any] | None = None
        self.failure = ''
        """Why it cannot go on; empty while it can."""
        self._advertise()
        self._listen()
        self.create_timer(1.0 / self._contract.control_rate_hz, self._tick)

    @property
    def over(self) -> bool:
        """Whether all is done, or nothing more can be."""
        return bool(self.failure) or self._cycle.finished

    def summary(self) -> str:
        """How many demonstrations there were, in words."""
        tally = self._cycle.tally
        return ', '.join(f'{tally[what]} {what}' for what in ('succeeded', 'failed', 'no task') if tally[what]
                         or what == 'succeeded')

    def break_off(self) -> None:
        """Discard what is open: the program ends."""
        for act in self._cycle.break_off('interrupted'):
            self._do(act)

    def _advertise(self) -> None:
        self._targets = {stream.topic: advertise(self, stream) for stream in self._words.streams}
        self._prompts = tuple(advertise(self, self._streams.find(kind)) for kind in PROMPT_KINDS)
        self._marks = advertise(self, self._streams.find(StreamKind.EPISODE_MARK))
        self._seeds = self.create_client(SetParameters, f'{SIMULATOR}/set_parameters')
        self._resets = self.create_client(Trigger, f'{SIMULATOR}/reset')

    def _listen(self) -> None:
        for name in self._contract.arms:
            subscribe(self, self._streams.find(StreamKind.JOINT_STATE, name), partial(self._on_joints, name))
        self.create_subscription(MarkerArray, topics.SIM_OBJECTS, self._eyes.take_objects, profile(Role.STATUS))

    def _on_joints(self, name: str, message: JointState) -> None:
        try:
            self._eyes.take_joints(name, message)
        except DecodeError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=_REPEAT_S)

    def _tick(self) -> None:
        if self.over or self._waits():
            return
        if rivals := self._rivals():
            if time.monotonic() - self._alone_s > _RIVAL_S:
                self._fail(f'{rivals}; the demonstrator takes the place of the policy: stop the other one first')
            return
        self._alone_s = time.monotonic()
        now = self._eyes.situation(int(self.get_clock().now().nanoseconds))
        if now is None:
            self.get_logger().info('waiting for joint states of every arm and for sim/objects',
                                   throttle_duration_sec=_REPEAT_S)
            return
        try:
            for act in self._cycle.tick(now):
                self._do(act)
        except NoTaskError as error:
            self._fail(str(error))

    def _waits(self) -> bool:
        """For the answer to a reset, or for somebody who records."""
        if self._resetting is not None:
            self._ask_again()
            return True
        if self._await_recorder and self._marks.get_subscription_count() == 0:
            self.get_logger().info(f'waiting for a recorder on {topics.EPISODE}', throttle_duration_sec=_REPEAT_S)
            return True
        return False

    def _rivals(self) -> str:
        for publisher in self._targets.values():
            if self.count_publishers(publisher.topic_name) > 1:
                names = {f'{end.node_namespace.rstrip("/")}/{end.node_name}'
                         for end in self.get_publishers_info_by_topic(publisher.topic_name)}
                others = sorted(names - {self.get_fully_qualified_name()})
                return f'{publisher.topic_name} has another publisher ({", ".join(others)})' if others else ''
        return ''

    def _do(self, act: Act) -> None:
        if isinstance(act, Target):
            self._send(act)
        elif isinstance(act, Reset):
            self._resetting = (act, -np.inf, None)
            self._ask_again()
        elif isinstance(act, Instruct):
            self.get_logger().info(f'"{act.instruction}"')
            for publisher in self._prompts:
                publisher.publish(String(data=act.instruction))
        else:
            self._mark(act)

    def _mark(self, act: Mark) -> None:
        self._marks.publish(String(data=act.mark.value))
        self.get_logger().info(f'episode: {act.mark.value}{f", {act.reason}" if act.reason else ""} '
                               f'({self.summary()})')

    def _send(self, target: Target) -> None:
        for topic, message in self._words.of(target):
            self._targets[topic].publish(message)

    # Resets: two questions to the simulator, asked until it answers --------------------------------

    def _ask_again(self) -> None:
        assert self._resetting is not None, 'only asked while a reset is wanted'
        act, asked_s, _ = self._resetting
        if time.monotonic() - asked_s < _ANSWER_S:
            return
        if not (self._seeds.service_is_ready() and self._resets.service_is_ready()):
            self.get_logger().info(f'waiting for the services of {SIMULATOR}', throttle_duration_sec=_REPEAT_S)
            return
        seed = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=act.seed)
        future: Any = self._seeds.call_async(SetParameters.Request(
            parameters=[Parameter(name='reset_seed', value=seed)]))
        future.add_done_callback(self._on_seed)
        self._resetting = (act, time.monotonic(), future)

    def _on_seed(self, future: Any) -> None:
        if self._resetting is None or future is not self._resetting[2]:
            return
        answer = future.result().results[0]
        if not answer.successful:
            self._fail(f'{SIMULATOR} refused the seed {self._resetting[0].seed}: {answer.reason}')
            return
        again: Any = self._resets.call_async(Trigger.Request())
        again.add_done_callback(self._on_reset)
        self._resetting = (self._resetting[0], self._resetting[1], again)

    def _on_reset(self, future: Any) -> None:
        if self._resetting is None or future is not self._resetting[2] or not future.result().success:
            return
        self._resetting = None
        self._cycle.was_reset(int(self.get_clock().now().nanoseconds))

    def _fail(self, reason: str) -> None:
        self.failure = reason
        for act in self._cycle.break_off(reason):
            self._do(act)
