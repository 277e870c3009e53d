"""The program ``simulator``: starts the node, ends it cleanly, says plainly why it cannot start."""

import os
import sys

from apt_policy.console import explain_missing
from apt_policy.core.stop import stop_requests
from apt_sim.world.assets import AssetsMissing
from apt_sim.world.graphics import GraphicsError


def main() -> int:
    """Run until SIGINT or SIGTERM; the exit status is 1 if the simulator could not start."""
    # MuJoCo would look for OpenGL when imported, and fail in a way that explains nothing where there is
    # none; the cameras open their own context.
    os.environ['MUJOCO_GL'] = 'disabled'
    with stop_requests() as stop, explain_missing('aloha_sim'):
        import rclpy
        from rclpy.signals import SignalHandlerOptions

        from apt_sim.world.simulator import Simulator
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        try:
            node = Simulator()
        except (ValueError, AssetsMissing) as error:
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
