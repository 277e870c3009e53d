"""Program ``ik_bridge``: starts the node, and ends it cleanly."""

import os
import sys

from apt_policy.console import error_text, explain_missing
from apt_policy.core.errors import UserError
from apt_policy.core.stop import stop_requests

_SPIN_S = 0.1


def main() -> int:
    """Run until SIGINT or SIGTERM; return 1 if the bridge could not start."""
    # Kinematics renders nothing, so MuJoCo need not load OpenGL when it is imported.
    os.environ['MUJOCO_GL'] = 'disabled'
    with stop_requests() as stop, explain_missing('ik_bridge'):
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions

        from apt_control.ik_bridge import IkBridge
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        try:
            node = IkBridge()
        except (UserError, OSError, ValueError) as error:
            sys.stderr.write(f'ik_bridge: {error_text(error)}\n')
            rclpy.try_shutdown()
            return 1
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        try:
            while not stop.is_set():
                executor.spin_once(timeout_sec=_SPIN_S)
        finally:
            # Nothing is sent at the end: the driver keeps the last command.
            executor.shutdown()
            node.destroy_node()
            rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
