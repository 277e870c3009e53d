"""Program ``simulator``: run the node ``aloha_sim`` until it is stopped."""

import os
import sys

from apt_policy.console import explain_missing
from apt_policy.core.stop import stop_requests


def main() -> int:
    """Run until SIGINT or SIGTERM.

    Returns:
        0 when stopped, 1 if the simulator cannot start.
    """
    # Otherwise MuJoCo looks for OpenGL when it is imported, and its error names no fix where there is none; the cameras
    # open their own context.
    os.environ['MUJOCO_GL'] = 'disabled'
    with stop_requests() as stop, explain_missing('aloha_sim'):
        import rclpy
        from rclpy.signals import SignalHandlerOptions

        from apt_sim.world.graphics import GraphicsError
        from apt_sim.world.robot_assets import MissingAssetsError
        from apt_sim.world.simulator import SimulatorNode
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        try:
            node = SimulatorNode()
        except (ValueError, MissingAssetsError) as error:
            return _cannot_start(error)
        try:
            node.run(stop)
        except GraphicsError as error:
            return _cannot_start(error)
        finally:
            node.destroy_node()
            rclpy.try_shutdown()
    return 0


def _cannot_start(error: Exception) -> int:
    sys.stderr.write(f'aloha_sim: {error}\n')
    return 1


if __name__ == '__main__':
    sys.exit(main())
