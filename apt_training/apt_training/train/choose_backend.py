"""From a configuration to its back-end."""

from apt_training.train.backends import Backend, TorchBackend
from apt_training.train.config import BackendKind, TrainConfig
from apt_training.train.objective import Objective
from apt_training.train.world import World


def make_backend(objective: Objective, config: TrainConfig, world: World) -> Backend:
    """The back-end that ``config`` names."""
    if config.backend is BackendKind.DDP:
        return TorchBackend(objective, config, world)
    # Importing DeepSpeed takes seconds and looks for compilers: only who uses it pays.
    from apt_training.train.deepspeed_backend import DeepSpeedBackend
    return DeepSpeedBackend(objective, config, world)
