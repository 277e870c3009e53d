"""The parameters of the simulator node."""

from dataclasses import dataclass

from apt_bringup.sim.scene import CUBE_COLOURS, TRAY_COLOURS
from apt_policy.ros.params import Change, parameter


@dataclass(frozen=True, kw_only=True)
class SimulatorParams:
    """What a user may choose; the rest is the contract's."""

    contract: str = parameter('', 'path of the robot contract (YAML)', change=Change.NEVER, required=True)
    seed: int = parameter(0, 'seed of the first episode; every reset takes the next one', change=Change.NEVER,
                          lower=0, upper=2**31 - 1)
    width: int = parameter(320, 'width of the images [px]', change=Change.NEVER, lower=16, upper=1920)
    height: int = parameter(240, 'height of the images [px]', change=Change.NEVER, lower=16, upper=1200)
    render: bool = parameter(True, 'whether the cameras deliver images; without, no OpenGL is needed',
                             change=Change.NEVER)
    speed: float = parameter(1.0, 'simulated seconds per second, if the machine keeps up',
                             change=Change.NEVER, lower=0.01, upper=100.0)
    cubes: tuple[str, ...] = parameter(tuple(CUBE_COLOURS), 'colours of the cubes on the table',
                                       change=Change.NEVER)
    trays: tuple[str, ...] = parameter(tuple(TRAY_COLOURS), 'colours of the trays', change=Change.NEVER)
    viewer: bool = parameter(False, 'open the interactive viewer of MuJoCo (needs a display)',
                             change=Change.NEVER)
