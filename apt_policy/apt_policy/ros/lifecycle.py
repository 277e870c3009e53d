"""A managed node answers every request for a transition, a wrong one too.

rclpy raises out of the executor when a transition does not exist in the present state, so
that one mistaken ``ros2 lifecycle set`` would end a node that holds two arms.
"""

from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import LifecycleNode


def answer_every_transition(node: LifecycleNode) -> None:
    """Refuse transitions that are not available now, saying which ones are."""
    service = node._service_change_state  # type: ignore[attr-defined]
    change = service.callback

    def answer(request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        machine = node._state_machine  # type: ignore[attr-defined]
        available = {label: number for number, label, *_ in machine.available_transitions}
        wanted = request.transition.label or request.transition.id
        if request.transition.id in available.values() or request.transition.label in available:
            return change(request, response)
        node.get_logger().warning(
            f'there is no transition {wanted!r} in state {machine.current_state[1]!r}; '
            f'there are {", ".join(available)}')
        response.success = False
        return response

    service.callback = answer
