"""Program ``demonstrator``: run the node of the scripted expert until it is stopped or done."""

import os
import sys
import time

from apt_policy.console import explain_missing
from apt_policy.core.stop import stop_requests

_SPIN_TIMEOUT_S = 0.1
# DDS needs time to send the last mark before its publisher is destroyed.
_FLUSH_S = 0.5


def main() -> int:
    """Run until SIGINT or SIGTERM, or until all episodes are done.

    Returns:
        0 when stopped or done, 1 if it cannot start or cannot continue.
    """
    # Kinematics needs no rendering, so MuJoCo need not look for OpenGL when it is imported.
    os.environ['MUJOCO_GL'] = 'disabled'
    with stop_requests() as stop, explain_missing('demonstrator'):
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions

        from apt_sim.tasks.demonstrator_node import DemonstratorNode
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        try:
            node = DemonstratorNode()
        except ValueError as error:
            sys.stderr.write(f'demonstrator: {error}\n')
            return 1
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        try:
            while not (stop.is_set() or node.finished):
                executor.spin_once(timeout_sec=_SPIN_TIMEOUT_S)
            node.abort()
            time.sleep(_FLUSH_S)
        finally:
            executor.shutdown()
            node.destroy_node()
            rclpy.try_shutdown()
    sys.stderr.write(f'demonstrator: {node.failure or node.summary()}\n')
    return 1 if node.failure else 0


if __name__ == '__main__':
    sys.exit(main())
