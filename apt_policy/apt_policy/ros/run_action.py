"""RunPolicy action on ``~/run``: ``inference.session`` as a ROS action.

There is one goal at a time; others are refused meanwhile. A goal also ends when its client has left the graph. The
execute callback is a coroutine that awaits the session's end, so it never blocks the executor.
"""

from collections.abc import Callable

from apt_msgs.action import RunPolicy
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node
from rclpy.task import Future

from apt_policy.inference.ports import SteadyClock
from apt_policy.inference.session import RunProgress, RunResult, RunSession, Termination
from apt_policy.ros.graph_monitor import GoalClientMonitor
from apt_policy.ros.operators import UNCONFIGURED
from apt_policy.ros.stamps import from_duration, to_duration

_FEEDBACK_NS = 100_000_000
# A query of the graph costs as much as a message.
_LOOK_NS = 250_000_000
# Longer than the graph takes to lose and rediscover an endpoint, and short enough for arms without supervision.
_GONE_S = 2.0


class RunAction:
    """Action server that exists as long as the node."""

    def __init__(self, node: Node, session: Callable[[], RunSession | None]) -> None:
        """Create the server; ``session`` returns the present session, None while unconfigured."""
        self._node = node
        self._session = session
        self._goal: ServerGoalHandle | None = None
        self._ended: Future = Future()
        self._told_ns = 0
        self._steady = SteadyClock()
        self._looked_ns = 0
        self._client = GoalClientMonitor(node, '~/run')
        self._server = ActionServer(
            node, RunPolicy, '~/run', self._execute, goal_callback=self._consider,
            cancel_callback=self._cancel)

    def update(self, now_ns: int) -> None:
        """Publish feedback and detect the end of the run; called at every control tick and at cleanup.

        Args:
            now_ns: present time on the clock of the stamps [ns].
        """
        session = self._session()
        outcome = session.update(now_ns) if session is not None else None
        if isinstance(outcome, RunResult):
            # The goal may not be executing yet; it then finds the result when it starts.
            self._ended.set_result(outcome)
            self._goal = None
        elif outcome is not None and self._goal is not None and abs(now_ns - self._told_ns) >= _FEEDBACK_NS:
            self._told_ns = now_ns
            self._goal.publish_feedback(_feedback(outcome))
        if session is not None and outcome is not None and not isinstance(outcome, RunResult):
            self._look_for_client(session)

    def destroy(self) -> None:
        """Destroy the action server."""
        self._server.destroy()

    def _consider(self, request: RunPolicy.Goal) -> GoalResponse:
        session = self._session()
        answer = UNCONFIGURED if session is None else session.begin(
            request.prompt, max_duration_s=from_duration(request.max_duration) / 1e9,
            now_ns=self._node.get_clock().now().nanoseconds)
        if not answer.accepted:
            self._node.get_logger().warning(f'run refused: {answer.message}')
            return GoalResponse.REJECT
        self._ended = Future()
        self._client.track_goal(self._steady.now_ns())
        limit_s = from_duration(request.max_duration) / 1e9
        limit = f'at most {limit_s:g} s' if limit_s else 'no limit (max_duration is 0)'
        self._node.get_logger().info(f'run begins, {limit}: {request.prompt!r}')
        return GoalResponse.ACCEPT

    def _look_for_client(self, session: RunSession) -> None:
        steady_ns = self._steady.now_ns()
        if steady_ns - self._looked_ns < _LOOK_NS:
            return
        self._looked_ns = steady_ns
        gone_s = self._client.absent_s(steady_ns)
        if gone_s > _GONE_S:
            session.abandon(f'the client of the goal left the ROS graph {gone_s:.1f} s ago, and a run must not '
                            'outlive the one who can cancel it')

    def _cancel(self, _goal: ServerGoalHandle) -> CancelResponse:
        session = self._session()
        if session is not None:
            session.cancel()
        return CancelResponse.ACCEPT

    async def _execute(self, goal: ServerGoalHandle) -> RunPolicy.Result:
        if not self._ended.done():
            self._goal = goal
        finished: RunResult = await self._ended
        if goal.is_cancel_requested:
            goal.canceled()
        elif finished.termination is Termination.TIME_UP:
            goal.succeed()
        else:
            goal.abort()
        self._node.get_logger().info(f'run ended, {finished.termination.name}: {finished.message}')
        return RunPolicy.Result(
            termination_reason=int(finished.termination), message=finished.message,
            elapsed=to_duration(round(finished.elapsed_s * 1e9)))


def _feedback(progress: RunProgress) -> RunPolicy.Feedback:
    return RunPolicy.Feedback(
        hold_reason=int(progress.hold_reason), elapsed=to_duration(round(progress.elapsed_s * 1e9)),
        targets_sent=progress.targets_sent)
