"""Policy node: a managed (lifecycle) ROS node.

Configure loads and warms up the planner, activate activates the loop, and the service ``~/enable`` lets the arms
move. A transition that fails is logged with its reason; the node stays alive and can be configured again.
"""

import itertools
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lifecycle_msgs.srv import ChangeState
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from apt_policy.core import topics
from apt_policy.core.contract import RobotContract, load_contract
from apt_policy.core.sample import Hold, HoldReason
from apt_policy.inference.planner_config import PlannerConfig
from apt_policy.inference.ports import PlannerFactory
from apt_policy.inference.worker.worker import WorkerError
from apt_policy.ros.bridge import PolicyBridge
from apt_policy.ros.operators import OperatorServices
from apt_policy.ros.params import ParameterSet
from apt_policy.ros.pipeline import ConfigureAborted, Pipeline
from apt_policy.ros.planner_factory import trained_policy
from apt_policy.ros.policy_params import PolicyParams
from apt_policy.ros.run_action import RunAction
from apt_policy.ros.status import StatusPublisher, StatusReport
from apt_policy.ros.stream_warnings import StreamWarnings
from apt_policy.ros.transforms import TransformListener, create_transform_listener

NODE_NAME = topics.POLICY_NODE
_STATUS_PERIOD_S = 0.1
_DIAGNOSTICS_PERIOD_S = 1.0

MakeFactory = Callable[[PolicyParams, RobotContract], PlannerFactory]


def trained_planner(params: PolicyParams, contract: RobotContract) -> PlannerFactory:
    """Return the planner factory of a trained policy for the node's parameters."""
    config = PlannerConfig(
        checkpoint=params.checkpoint, vlm=params.vlm, device=params.device, dtype=params.dtype.value,
        use_ema=params.use_ema, denoising_steps=params.denoising_steps, noise_scale=params.noise_scale,
        seed=params.seed)
    return trained_policy(config, contract)


class _NodeClock:
    """Clock of the stamps."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now_ns(self) -> int:
        return int(self._clock.now().nanoseconds)


@dataclass(frozen=True, kw_only=True)
class _Configured:
    pipeline: Pipeline
    transforms: TransformListener
    bridge: PolicyBridge


class PolicyNode(LifecycleNode):
    """Lifecycle node ``apt_policy``."""

    def __init__(self, *, make_factory: MakeFactory = trained_planner, **node_arguments: Any) -> None:
        """Declare the parameters and create the services.

        Args:
            make_factory: function from parameters and contract to a planner factory.
            node_arguments: arguments of ``rclpy.node.Node``.

        Raises:
            ParameterError: parameters are invalid; the message names each one.
        """
        super().__init__(NODE_NAME, **node_arguments)
        self._configured: _Configured | None = None
        self._configuring = False
        self._why_inactive = 'the node is not configured'
        self._make_factory = make_factory
        self._ending = False
        self._sequence = itertools.count()
        self._params = ParameterSet(self, PolicyParams, is_configured=self._is_configured)
        self._status = StatusPublisher(self)
        OperatorServices(self, lambda: self._configured.pipeline.loop if self._configured else None)
        self._run = RunAction(self, lambda: self._configured.pipeline.session if self._configured else None)
        refuse_unavailable_transitions(self)
        # Reports continue when /clock stops.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_STATUS_PERIOD_S, self._report_status, clock=steady)
        self.create_timer(_DIAGNOSTICS_PERIOD_S, self._report_diagnostics, clock=steady)

    def end_soon(self) -> None:
        """Abort a transition that is waiting; for signal handlers."""
        self._ending = True

    def shutdown(self) -> None:
        """Stop the arms and release everything that configure created; a second call does nothing."""
        configured, self._configured = self._configured, None
        if configured is not None:
            configured.bridge.close()
            configured.transforms.close()
            configured.pipeline.close()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the contract and the planner, warm up, subscribe and advertise."""
        self._configuring = True
        self._why_inactive = 'the node is being configured'
        try:
            self._configured = self._configure()
        except ConfigureAborted:
            return self._refused('the node is shutting down')
        except (ValueError, WorkerError) as error:
            return self._refused(str(error))
        except Exception:
            return self._refused(traceback.format_exc())
        finally:
            self._configuring = False
        self.get_logger().info('configured; waiting to be activated')
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Activate the loop; targets are published only after ``~/enable``."""
        if self._configured is None:
            return TransitionCallbackReturn.FAILURE
        self._configured.pipeline.loop.activate()
        self._configured.bridge.check_graph()
        self.get_logger().info('active and disabled: call ~/enable to let the arms move')
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the arms at once."""
        if self._configured is not None:
            self._configured.pipeline.loop.deactivate()
            self._configured.bridge.process_events()
        self.get_logger().info('inactive; the arms keep their last command')
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the planner and all topics."""
        self.shutdown()
        self._why_inactive = 'the node is not configured'
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything before the end; see :meth:`on_cleanup`."""
        return self.on_cleanup(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured after a failed transition."""
        return self.on_cleanup(state)

    def destroy_node(self) -> None:
        """Shut down, then destroy the node."""
        self.shutdown()
        self._run.destroy()
        super().destroy_node()

    def _is_configured(self) -> bool:
        return self._configuring or self._configured is not None

    def _configure(self) -> _Configured:
        params = self._params.values
        contract = load_contract(params.contract)
        warnings = StreamWarnings(self.get_logger().warning)
        transforms = create_transform_listener(self, warnings.report_transient)
        pipeline: Pipeline | None = None
        try:
            pipeline = Pipeline(
                contract=contract, params=params, transforms=transforms, clock=_NodeClock(self.get_clock()),
                factory=self._make_factory(params, contract), report=self.get_logger().error)
            pipeline.warm_up(self._still_wanted)
            if params.default_prompt:
                answer = pipeline.loop.set_prompt(params.default_prompt)
                if not answer.accepted:
                    raise ValueError(f'default_prompt: {answer.message}')
            bridge = PolicyBridge(self, pipeline, self._params, warnings=warnings, status=self._status,
                                  run=self._run, sequence=self._sequence)
        except BaseException:
            transforms.close()
            if pipeline is not None:
                pipeline.close()
            raise
        if not params.checkpoint:
            self.get_logger().warning('no checkpoint is given: the policy is UNTRAINED')
        for warning in pipeline.warnings:
            self.get_logger().warning(f'UNBOUNDED: {warning}')
        return _Configured(pipeline=pipeline, transforms=transforms, bridge=bridge)

    def _still_wanted(self) -> bool:
        """Return whether configure should go on waiting; it blocks the executor, so the status is published here."""
        self._report_status()
        return not self._ending and self.context.ok()

    def _refused(self, reason: str) -> TransitionCallbackReturn:
        self._why_inactive = f'configure failed: {reason}'
        self.get_logger().error(self._why_inactive)
        return TransitionCallbackReturn.FAILURE

    def _report(self) -> StatusReport:
        if self._configured is None:
            return StatusReport(hold=Hold(reason=HoldReason.INACTIVE, detail=self._why_inactive), status=None)
        return self._configured.bridge.report()

    def _report_status(self) -> None:
        if self._configured is not None:
            self._configured.bridge.check_graph()
            self._configured.bridge.process_events()
        self._status.send_status(self._report())

    def _report_diagnostics(self) -> None:
        if self._configured is not None:
            self._configured.bridge.check_rates()
        self._status.send_diagnostics(self._report())


def refuse_unavailable_transitions(node: LifecycleNode) -> None:
    """Refuse a transition that the present state does not have, and log those that it has.

    rclpy raises out of the executor in that case (rclpy 7.1.6), so one mistaken ``ros2 lifecycle set`` would end a node
    that controls two arms.
    """
    service = node._service_change_state  # type: ignore[attr-defined]
    change_state = service.callback

    def handle(request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        machine = node._state_machine  # type: ignore[attr-defined]
        available = {label: number for number, label, *_ in machine.available_transitions}
        wanted = request.transition.label or request.transition.id
        if request.transition.id in available.values() or request.transition.label in available:
            return change_state(request, response)
        node.get_logger().warning(
            f'transition {wanted!r} does not exist in state {machine.current_state[1]!r}; '
            f'available transitions: {", ".join(available)}')
        response.success = False
        return response

    service.callback = handle
