"""Bring-up of a managed node under ``ros2 launch``: once, and a refusal ends the launch, unless that would end drivers.

Transitions after the first activation are the operator's: a later configure stays inactive, and one that fails ends
nothing. Only launch files import the module, since only a ROS distribution has ``launch``.
"""

from launch import Event, LaunchContext
from launch.actions import EmitEvent, OpaqueFunction, RegisterEventHandler, UnregisterEventHandler
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.logging import get_logger
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState, StateTransition
from lifecycle_msgs.msg import Transition

from apt_policy.core.errors import UserError

_REFUSALS = {('configuring', 'unconfigured'): 'configure', ('activating', 'inactive'): 'activate',
             ('errorprocessing', 'unconfigured'): 'start', ('errorprocessing', 'finalized'): 'start'}


class BringUpRefusedError(UserError, RuntimeError):
    """Refused bring-up, which ends the launch with exit status 1."""


def bring_up(node: LifecycleNode, full_name: str, *, with_drivers: bool) -> list[RegisterEventHandler]:
    """Return handlers that configure and activate a node once its process runs; list them before the node itself.

    Args:
        node: action of the node.
        full_name: name of the node in messages.
        with_drivers: True if this launch runs the drivers of a robot too. A driver that ends drops the arms, so a
            refusal is then an error in the log, and everything else continues.
    """
    def change(transition: int) -> EmitEvent:
        return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition))

    def is_refusal(event: Event) -> bool:
        return (isinstance(event, StateTransition) and event.action is node
                and (event.start_state, event.goal_state) in _REFUSALS)

    def refuse(context: LaunchContext) -> None:
        # A signal aborts a transition too.
        if not context.is_shutdown:
            event = context.locals.event
            verb = _REFUSALS[event.start_state, event.goal_state]
            refusal = f'{full_name} refused to {verb}: see its log'
            if not with_drivers:
                raise BringUpRefusedError(refusal)
            # The operator decides what happens next: nothing is activated without a request.
            for handler in (activation, refused):
                context.unregister_event_handler(handler)
            get_logger('launch').error(f'{refusal}. The drivers continue, because the arms drop when they end.')

    activation = OnStateTransition(target_lifecycle_node=node, start_state='configuring', goal_state='inactive',
                                   entities=[change(Transition.TRANSITION_ACTIVATE)], handle_once=True)
    refused = OnStateTransition(matcher=is_refusal, entities=[OpaqueFunction(function=refuse)])
    return [RegisterEventHandler(handler) for handler in (
        OnProcessStart(target_action=node, on_start=[change(Transition.TRANSITION_CONFIGURE)]),
        activation,
        refused,
        OnStateTransition(target_lifecycle_node=node, goal_state='active',
                          entities=[UnregisterEventHandler(refused)], handle_once=True))]
