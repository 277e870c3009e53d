"""ROS node of the scripted expert: it replaces the policy on the simulated robot.

Targets go out on the policy's topics, so the same IK bridge executes them; instruction and episode marks go to
recorders. :class:`DemonstrationLoop` decides the actions.
"""

import time
from dataclasses import dataclass
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
from apt_policy.ros.params import Mutability, ParameterSet, parameter
from apt_policy.ros.qos import advertise, profile, subscribe
from apt_sim.tasks.demonstration_loop import (
    DemonstrationLoop,
    LoopAction,
    PublishEpisodeMark,
    PublishInstruction,
    ResetScene,
)
from apt_sim.tasks.ground_truth_buffer import GroundTruthBuffer
from apt_sim.tasks.messages import TargetMessages
from apt_sim.tasks.task import Skill
from apt_sim.tasks.task_sampler import NoTaskError

SIMULATOR = 'aloha_sim'
_LOG_PERIOD_S = 5.0
# A request that DDS lost is sent again; a second reset to the same seed has no effect.
_RESPONSE_TIMEOUT_S = 3.0
# A publisher that is shutting down stays in the ROS graph for a moment.
_OTHER_PUBLISHER_TIMEOUT_S = 1.5


@dataclass(frozen=True, kw_only=True)
class DemonstratorParams:
    """ROS parameters of the node ``demonstrator``; facts about the robot are in the contract."""

    contract: str = parameter('', 'path of the robot contract (YAML)', mutability=Mutability.NEVER, required=True)
    skills: tuple[str, ...] = parameter((Skill.PICK.value, Skill.PLACE.value),
                                        'skills to demonstrate: pick, place, hand_over, push',
                                        mutability=Mutability.NEVER)
    episodes: int = parameter(0, 'successful demonstrations after which the program ends; 0: no limit',
                              mutability=Mutability.NEVER, lower=0, upper=10**6)
    seed: int = parameter(0, 'seed of the first scene; every further scene takes the next one',
                          mutability=Mutability.NEVER, lower=0, upper=2**31 - 1)
    await_recorder: bool = parameter(False, 'wait for a subscriber to the episode marks before the first episode',
                                     mutability=Mutability.NEVER)

    def __post_init__(self) -> None:
        known = [skill.value for skill in Skill]
        unknown = sorted(set(self.skills) - set(known))
        if unknown or not self.skills:
            raise ValueError(f'skills is {", ".join(unknown) or "empty"}, expected one or more of '
                             f'{", ".join(known)}')


class DemonstratorNode(Node):
    """Node ``demonstrator``."""

    def __init__(self) -> None:
        """Read the contract and create publishers, subscriptions and clients.

        Raises:
            ParameterError, ValueError: a parameter is invalid.
            ContractError, KinematicsError: the contract cannot be read, or an arm has no chain or workspace.
        """
        super().__init__('demonstrator')
        params = ParameterSet(self, DemonstratorParams).values
        self._await_recorder = params.await_recorder
        self._contract = load_contract(params.contract)
        self._streams = StreamTable(self._contract)
        self._ground_truth = GroundTruthBuffer(self._contract)
        self._loop = DemonstrationLoop(self._contract, [Skill(name) for name in params.skills], seed=params.seed,
                                       episodes=params.episodes)
        self._target_messages = TargetMessages(self._contract)
        self._exclusive_s = time.monotonic()
        self._resetting: tuple[ResetScene, float, Any] | None = None
        self.failure = ''
        """Reason for which the node cannot continue; empty while it can."""
        self._create_publishers()
        self._create_subscriptions()
        self.create_timer(1.0 / self._contract.control_rate_hz, self._tick)

    @property
    def finished(self) -> bool:
        """True if all episodes are done, or the node has failed."""
        return bool(self.failure) or self._loop.finished

    def summary(self) -> str:
        """Return the counts of demonstrations as text."""
        counts = self._loop.counts
        return ', '.join(f'{counts[what]} {what}' for what in ('succeeded', 'failed', 'no task') if counts[what]
                         or what == 'succeeded')

    def abort(self) -> None:
        """Discard an open episode before the program ends."""
        for act in self._loop.abort('interrupted'):
            self._do(act)

    def _create_publishers(self) -> None:
        self._targets = {stream.topic: advertise(self, stream) for stream in self._target_messages.streams}
        self._prompts = tuple(advertise(self, self._streams.find(kind)) for kind in PROMPT_KINDS)
        self._marks = advertise(self, self._streams.find(StreamKind.EPISODE_MARK))
        self._seeds = self.create_client(SetParameters, f'{SIMULATOR}/set_parameters')
        self._resets = self.create_client(Trigger, f'{SIMULATOR}/reset')

    def _create_subscriptions(self) -> None:
        for name in self._contract.arms:
            subscribe(self, self._streams.find(StreamKind.JOINT_STATE, name), partial(self._on_joints, name))
        self.create_subscription(MarkerArray, topics.SIM_OBJECTS, self._ground_truth.update_objects,
                                 profile(Role.STATUS))

    def _on_joints(self, name: str, message: JointState) -> None:
        try:
            self._ground_truth.update_joints(name, message)
        except DecodeError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=_LOG_PERIOD_S)

    def _tick(self) -> None:
        if self.finished or self._is_waiting():
            return
        if others := self._other_publishers():
            if time.monotonic() - self._exclusive_s > _OTHER_PUBLISHER_TIMEOUT_S:
                self._fail(f'{others}; the demonstrator replaces the policy: stop the other publisher first')
            return
        self._exclusive_s = time.monotonic()
        now = self._ground_truth.ground_truth(int(self.get_clock().now().nanoseconds))
        if now is None:
            self.get_logger().info('Waiting for joint states of every arm and for sim/objects.',
                                   throttle_duration_sec=_LOG_PERIOD_S)
            return
        try:
            for act in self._loop.tick(now):
                self._do(act)
        except NoTaskError as error:
            self._fail(str(error))

    def _is_waiting(self) -> bool:
        """Return whether a reset is in progress or a recorder is missing."""
        if self._resetting is not None:
            self._request_reset()
            return True
        if self._await_recorder and self._marks.get_subscription_count() == 0:
            self.get_logger().info(f'Waiting for a recorder on {topics.EPISODE}.', throttle_duration_sec=_LOG_PERIOD_S)
            return True
        return False

    def _other_publishers(self) -> str:
        for publisher in self._targets.values():
            if self.count_publishers(publisher.topic_name) > 1:
                names = {f'{end.node_namespace.rstrip("/")}/{end.node_name}'
                         for end in self.get_publishers_info_by_topic(publisher.topic_name)}
                others = sorted(names - {self.get_fully_qualified_name()})
                return f'{publisher.topic_name} has another publisher ({", ".join(others)})' if others else ''
        return ''

    def _do(self, act: LoopAction) -> None:
        if isinstance(act, Target):
            self._send(act)
        elif isinstance(act, ResetScene):
            self._resetting = (act, -np.inf, None)
            self._request_reset()
        elif isinstance(act, PublishInstruction):
            self.get_logger().info(f'"{act.instruction}"')
            for publisher in self._prompts:
                publisher.publish(String(data=act.instruction))
        else:
            self._mark(act)

    def _mark(self, act: PublishEpisodeMark) -> None:
        self._marks.publish(String(data=act.mark.value))
        self.get_logger().info(f'Episode: {act.mark.value}{f", {act.reason}" if act.reason else ""} '
                               f'({self.summary()}).')

    def _send(self, target: Target) -> None:
        for topic, message in self._target_messages.messages_for(target):
            self._targets[topic].publish(message)

    # Resets: two service calls to the simulator, repeated until it responds ------------------------

    def _request_reset(self) -> None:
        assert self._resetting is not None, 'only called while a reset is requested'
        act, requested_s, _ = self._resetting
        if time.monotonic() - requested_s < _RESPONSE_TIMEOUT_S:
            return
        if not (self._seeds.service_is_ready() and self._resets.service_is_ready()):
            self.get_logger().info(f'Waiting for the services of {SIMULATOR}.', throttle_duration_sec=_LOG_PERIOD_S)
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
            self._fail(f'{SIMULATOR} rejected the seed {self._resetting[0].seed}: {answer.reason}')
            return
        again: Any = self._resets.call_async(Trigger.Request())
        again.add_done_callback(self._on_reset)
        self._resetting = (self._resetting[0], self._resetting[1], again)

    def _on_reset(self, future: Any) -> None:
        if self._resetting is None or future is not self._resetting[2] or not future.result().success:
            return
        self._resetting = None
        self._loop.on_reset_done(int(self.get_clock().now().nanoseconds))

    def _fail(self, reason: str) -> None:
        self.failure = reason
        for act in self._loop.abort(reason):
            self._do(act)
