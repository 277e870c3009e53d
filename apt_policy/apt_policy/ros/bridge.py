"""ROS interface of a configured policy: subscriptions, control timer, publishers and reports.

It exists between configure and cleanup. The control timer's callback publishes the
loop's target; events become messages and log lines.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from apt_policy.core.sample import Hold, HoldReason, Target
from apt_policy.core.stream_spec import StreamKind
from apt_policy.core.stream_table import StreamTable
from apt_policy.inference.ports import SteadyClock
from apt_policy.inference.report import ChunkAccepted, Event, HoldChanged, PlannerFailed, PromptChanged
from apt_policy.ros.graph_monitor import QosMonitor, other_publishers
from apt_policy.ros.inputs import RobotInputs
from apt_policy.ros.operators import OperatorTopics
from apt_policy.ros.outputs import PolicyOutputs
from apt_policy.ros.params import ParameterSet
from apt_policy.ros.pipeline import Pipeline
from apt_policy.ros.policy_params import PolicyParams
from apt_policy.ros.run_action import RunAction
from apt_policy.ros.status import HoldLog, StatusPublisher, StatusReport, slow_streams
from apt_policy.ros.stream_warnings import StreamWarnings

# Silence of the control timer after which it is reported.
_WATCHDOG_NS = 500_000_000
# Consecutive checks, one per second, after which a slow stream is reported.
_SLOW_CHECKS = 3


class PolicyBridge:
    """Subscriptions, publishers and control timer of a configured policy."""

    def __init__(self, node: Node, pipeline: Pipeline, params: ParameterSet[PolicyParams], *, warnings: StreamWarnings,
                 status: StatusPublisher, run: RunAction, sequence: Iterator[int]) -> None:
        """Subscribe, advertise and start the control timer; the pipeline must be warm.

        Args:
            node: node of the policy.
            pipeline: warm pipeline.
            params: parameters of the node.
            warnings: warnings about streams.
            status: publisher of status and diagnostics.
            run: the RunPolicy action.
            sequence: sequence numbers of targets, which continue over a reconfiguration.
        """
        contract, values = pipeline.contract, params.values
        self._node = node
        self._params = params
        self._pipeline = pipeline
        self._warnings = warnings
        self._status = status
        self._run = run
        self._log = HoldLog(node)
        self._steady = SteadyClock()
        self._slow: Counter[str] = Counter()
        self._ticked_ns = self._steady.now_ns()
        self._inputs = RobotInputs(node, contract, values, pipeline.assembler, warnings)
        self._outputs = PolicyOutputs(node, contract, sequence)
        self._operators = OperatorTopics(node, pipeline.loop, warnings,
                                         prompts=StreamTable(contract).find(StreamKind.PROMPT),
                                         dead_man=values.dead_man_timeout_s > 0)
        self._qos_monitor = QosMonitor(node, self._outputs.publishers,
                               [*self._inputs.subscriptions, *self._operators.subscriptions], warnings.report_transient)
        # Under simulation the stamps' clock, so that control slows down with the simulator; on a robot the steady
        # clock, which time synchronisation does not change.
        clock = node.get_clock() if _simulated(node) else Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(1.0 / contract.control_rate_hz, self._tick, clock=clock)

    def check_graph(self) -> None:
        """Report other publishers of targets to the loop, and check the QoS of one more topic."""
        self._qos_monitor.check_one()
        self._pipeline.loop.second_publishers(
            other_publishers(self._node, self._outputs.target_publishers))

    def check_rates(self) -> None:
        """Warn of streams that have been slower than their expected rate for several checks."""
        report = self.report()
        slow = slow_streams(report.streams) if report.status is not None and report.status.active else {}
        self._slow = Counter({name: self._slow[name] + 1 for name in slow})
        for name, text in slow.items():
            if self._slow[name] >= _SLOW_CHECKS:
                self._warnings.report_transient(name, text)

    def report(self) -> StatusReport:
        """Return the present report."""
        now_ns = self._node.get_clock().now().nanoseconds
        status = self._pipeline.loop.status()
        streams = self._pipeline.assembler.ages(now_ns)
        hold = self._watchdog() if status.active else None
        return StatusReport(hold=self._explained(hold or status.hold), status=status, streams=streams)

    def process_events(self) -> None:
        """Process the events since the last tick."""
        self._run.update(self._node.get_clock().now().nanoseconds)
        for event in self._pipeline.loop.drain_events():
            self._handle_event(event)

    def close(self) -> None:
        """Stop publishing, then remove timer, subscriptions and publishers."""
        self._node.destroy_timer(self._timer)
        self._pipeline.loop.deactivate()
        self.process_events()
        for part in (self._operators, self._inputs, self._outputs):
            part.close()

    def _tick(self) -> None:
        now_ns = self._node.get_clock().now().nanoseconds
        outcome = self._pipeline.loop.tick(now_ns)
        if isinstance(outcome, Target):
            self._outputs.send_target(outcome)
        self._ticked_ns = self._steady.now_ns()
        self._pipeline.observe_soon()
        self.process_events()

    def _handle_event(self, event: Event) -> None:
        match event:
            case HoldChanged(hold=hold):
                report = self.report()
                self._log.log_hold(self._explained(hold))
                self._status.send_status(report)
            case ChunkAccepted(planned=planned):
                self._outputs.send_chunk(planned.chunk)
                if self._params.values.plan_markers:
                    self._outputs.send_markers(planned.chunk)
            case PromptChanged(prompt=prompt):
                self._outputs.send_prompt(prompt)
            case PlannerFailed(failure=failure):
                self._node.get_logger().error(
                    f'inference failed: {failure.message}\n{failure.trace}'.rstrip())

    def _watchdog(self) -> Hold | None:
        """Return a hold if the control timer has stopped, because the loop's hold is out of date then."""
        silent_ns = self._steady.now_ns() - self._ticked_ns
        if silent_ns < _WATCHDOG_NS:
            return None
        cause = 'is /clock published?' if _simulated(self._node) else 'the process gets too little CPU time'
        return Hold(reason=HoldReason.STALE_STREAM,
                    detail=f'the control timer has not fired for {silent_ns / 1e9:.1f} s: {cause}')

    def _explained(self, hold: Hold) -> Hold:
        """Add the warnings about the hold's topics to its detail."""
        known: tuple[str, ...] = ()
        if hold.reason in (HoldReason.MISSING_STREAM, HoldReason.STALE_STREAM, HoldReason.BAD_INPUT):
            known = self._inputs.warnings_for(hold.stream)
        elif hold.reason is HoldReason.NO_PROMPT:
            known = self._warnings.active((self._operators.prompt_topic,))
        return replace(hold, detail='; '.join((hold.detail, *known))) if known else hold


def _simulated(node: Node) -> bool:
    return bool(node.get_parameter('use_sim_time').value)
