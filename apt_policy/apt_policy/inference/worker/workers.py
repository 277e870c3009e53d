"""Which worker a kind stands for."""

from apt_policy.inference.ports import PlannerFactory
from apt_policy.inference.worker.process_worker import ProcessWorker
from apt_policy.inference.worker.thread_worker import ThreadWorker
from apt_policy.inference.worker.worker import Worker, WorkerKind, WorkerSettings


def start_worker(kind: WorkerKind, factory: PlannerFactory, *, cameras: int, image_size: int,
                 settings: WorkerSettings | None = None) -> Worker:
    """Start building the planner; :meth:`Worker.warm_up` waits for it.

    Args:
        kind: where it runs.
        factory: builds it; must be picklable for :attr:`WorkerKind.PROCESS`.
        cameras: most views in an observation.
        image_size: side of their images [px].
        settings: timeouts, threads, restarts.
    """
    if kind is WorkerKind.THREAD:
        return ThreadWorker(factory, settings=settings)
    return ProcessWorker(factory, cameras=cameras, image_size=image_size, settings=settings)
