"""Program of the policy node: signals, executor, exit code.

Nothing heavy is imported before the signal handlers are installed, so that a signal ends the
process cleanly at any time; the node itself is in ``policy_node``.
"""

import sys
from typing import TYPE_CHECKING

from apt_policy.console import explain_missing
from apt_policy.core.stop import StopRequest, handle_stop_signals

if TYPE_CHECKING:
    from apt_policy.ros.policy_node import MakeFactory

# Period at which the main loop checks for a stop request.
_SPIN_S = 0.2
# Python's default is 0.005 s, which is as long as a quarter of a control period at 50 Hz.
_SWITCH_INTERVAL_S = 0.001
# Modules of the worker, which starts when the node is configured.
_IMPORTED_LATER = ('torch', 'transformers', 'diffusers', 'safetensors')


def main(args: list[str] | None = None, make_factory: 'MakeFactory | None' = None) -> int:
    """Run the node until SIGINT or SIGTERM.

    Args:
        args: command-line arguments.
        make_factory: maker of the planner factory; None for the trained policy.

    Returns:
        0 after SIGINT or SIGTERM at any time, 1 if a parameter is invalid.
    """
    stop = handle_stop_signals()
    with explain_missing('apt_policy', later=() if make_factory else _IMPORTED_LATER):
        return _run(stop, args, make_factory)


def _run(stop: StopRequest, args: list[str] | None, make_factory: 'MakeFactory | None') -> int:
    import cv2
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from apt_policy.ros.params import ParameterError
    from apt_policy.ros.policy_node import NODE_NAME, PolicyNode, trained_planner

    # The control timer's thread gets the GIL back sooner from a thread that computes.
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    # On a busy machine, waiting for another thread takes longer than resizing in one thread.
    cv2.setNumThreads(1)
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = PolicyNode(make_factory=make_factory or trained_planner)
    except ParameterError as error:
        rclpy.logging.get_logger(NODE_NAME).fatal(str(error))
        rclpy.shutdown()
        return 1
    stop.on_request = node.end_soon
    # rclpy's events executor is faster, but its timers never fire (rclpy 7.1.6).
    executor = rclpy.executors.SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not stop.is_set() and rclpy.ok():
            executor.spin_once(timeout_sec=_SPIN_S)
    finally:
        node.shutdown()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
