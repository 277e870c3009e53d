"""The parameters of the simulator node."""

from dataclasses import dataclass

from apt_policy.ros.params import Mutability, parameter
from apt_sim.world.scene import SceneSettings


@dataclass(frozen=True, kw_only=True)
class SimulatorParams:
    """What a user may choose; the rest is the contract's."""

    contract: str = parameter('', 'path of the robot contract (YAML)', mutability=Mutability.NEVER, required=True)
    seed: int = parameter(0, 'seed of the first episode; every reset takes the next one', mutability=Mutability.NEVER,
                          lower=0, upper=2**31 - 1)
    reset_seed: int = parameter(-1, 'seed of the episode that a reset begins; -1 takes the next one',
                                mutability=Mutability.ANYTIME, lower=-1, upper=2**31 - 1)
    width: int = parameter(320, 'width of the images [px]', mutability=Mutability.NEVER, lower=16, upper=1920)
    height: int = parameter(240, 'height of the images [px]', mutability=Mutability.NEVER, lower=16, upper=1200)
    render: bool = parameter(True, 'whether the cameras deliver images; without, no OpenGL is needed',
                             mutability=Mutability.NEVER)
    speed: float = parameter(1.0, 'simulated seconds per second, if the machine keeps up',
                             mutability=Mutability.NEVER, lower=0.01, upper=100.0)
    objects: tuple[str, ...] = parameter(SceneSettings.objects, 'names of the objects to choose from',
                                         mutability=Mutability.NEVER)
    objects_on_table: int = parameter(0, 'how many of them lie on the table, drawn from the seed; 0: all',
                                      mutability=Mutability.NEVER, lower=0, upper=12)
    trays: tuple[str, ...] = parameter(SceneSettings.trays, 'colours of the trays to choose from',
                                       mutability=Mutability.NEVER)
    trays_on_table: int = parameter(0, 'likewise; there is room for two', mutability=Mutability.NEVER, lower=0, upper=2)
    vary_lights: bool = parameter(False, 'whether colours and lights differ from episode to episode',
                                  mutability=Mutability.NEVER)
    viewer: bool = parameter(False, 'open the interactive viewer of MuJoCo (needs a display)',
                             mutability=Mutability.NEVER)
