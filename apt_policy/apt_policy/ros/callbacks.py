"""A node's callbacks in a thread of their own, for programs whose main thread does something else."""

import threading
import traceback

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node


class Callbacks:
    """Runs them for as long as the block lasts; what fails in one of them is raised at its end."""

    def __init__(self, node: Node, stop: threading.Event) -> None:
        """``stop`` is set when a callback fails."""
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        self._stop = stop
        self._is_ending = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._spin, name='callbacks', daemon=True)

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            pass
        # Any failure must end the program, not only this thread.
        except BaseException as error:
            # During a shutdown rclpy 7.1.6 reads attributes of destroyed entities; other AttributeErrors are failures.
            if self._is_ending and isinstance(error, AttributeError) and _raised_by_rclpy(error):
                return
            self._failure = error
            self._stop.set()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._is_ending = True
        self._executor.shutdown(timeout_sec=1.0)
        self._thread.join(timeout=2.0)
        if self._failure is not None:
            raise self._failure


def _raised_by_rclpy(error: BaseException) -> bool:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get('__name__')).partition('.')[0] == 'rclpy'
