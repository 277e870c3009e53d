"""Services and topics of operators: enable, reset, prompts, the dead-man switch.

Every request gets the loop's response; without a configured policy it is refused.
"""

from collections.abc import Callable

from apt_msgs.srv import SetPrompt
from rclpy.node import Node
from rclpy.subscription import Subscription
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger

from apt_policy.core.stream_spec import FIXED_STREAMS, StreamKind, StreamSpec
from apt_policy.inference.loop import PolicyLoop
from apt_policy.inference.report import OperatorResponse
from apt_policy.ros.qos import deadline_events, subscribe
from apt_policy.ros.stream_warnings import StreamWarnings

UNCONFIGURED = OperatorResponse(accepted=False, message='the node is not configured: configure and activate it first',
                      epoch=0)


class OperatorServices:
    """Operator services, which exist as long as the node."""

    def __init__(self, node: Node, loop: Callable[[], PolicyLoop | None]) -> None:
        """Create the services; ``loop`` returns the present loop, None while unconfigured."""
        self._node = node
        self._loop = loop
        node.create_service(SetBool, '~/enable', self._enable)
        node.create_service(Trigger, '~/reset', self._reset)
        node.create_service(SetPrompt, '~/set_prompt', self._set_prompt)

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        loop = self._loop()
        answer = UNCONFIGURED if loop is None else loop.enable(request.data)
        response.success, response.message = answer.accepted, answer.message
        return self._logged('enable' if request.data else 'disable', answer, response)

    def _reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        loop = self._loop()
        answer = UNCONFIGURED if loop is None else loop.reset()
        response.success, response.message = answer.accepted, answer.message
        return self._logged('reset', answer, response)

    def _set_prompt(self, request: SetPrompt.Request, response: SetPrompt.Response) -> SetPrompt.Response:
        loop = self._loop()
        answer = UNCONFIGURED if loop is None else loop.set_prompt(request.prompt)
        response.accepted, response.message, response.epoch = answer.accepted, answer.message, answer.epoch
        return self._logged('set_prompt', answer, response)

    def _logged(self, request: str, answer: OperatorResponse, response: object) -> object:
        # rclpy requires one place in the code per severity.
        if answer.accepted:
            self._node.get_logger().info(f'{request}: {answer.message}')
        else:
            self._node.get_logger().warning(f'{request}: {answer.message}')
        return response


class OperatorTopics:
    """Operator topics of a configured policy."""

    def __init__(self, node: Node, loop: PolicyLoop, warnings: StreamWarnings, *, prompts: StreamSpec,
                 dead_man: bool) -> None:
        """Subscribe.

        Args:
            node: node of the subscriptions.
            loop: receiver of prompts and dead-man messages.
            warnings: receiver of refused prompts.
            prompts: stream of prompts.
            dead_man: True to use a dead-man switch.
        """
        self._node = node
        self._loop = loop
        self._warnings = warnings
        self.prompt_topic = str(node.resolve_topic_name(prompts.topic))
        self.subscriptions = [self._subscribe(prompts, self._on_prompt)]
        if dead_man:
            self.subscriptions.append(self._subscribe(FIXED_STREAMS[StreamKind.DEAD_MAN], self._on_dead_man))

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self.subscriptions:
            self._node.destroy_subscription(subscription)
        self.subscriptions = []

    def _subscribe(self, stream: StreamSpec, callback: Callable[..., None]) -> Subscription:
        events = deadline_events(stream.topic, self._warnings.report_transient, deadline_s=0.0)
        return subscribe(self._node, stream, callback, events=events)

    def _on_prompt(self, message: String) -> None:
        answer = self._loop.set_prompt(message.data)
        self._warnings.clear(self.prompt_topic)
        if answer.accepted:
            self._node.get_logger().info(answer.message)
        else:
            self._warnings.report_persistent(self.prompt_topic,
                                 f'a prompt on {self.prompt_topic} was refused: {answer.message}')

    def _on_dead_man(self, message: Bool) -> None:
        self._loop.dead_man(message.data)
