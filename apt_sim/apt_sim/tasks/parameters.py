"""The parameters of the demonstrator node."""

from dataclasses import dataclass

from apt_policy.ros.params import Mutability, parameter
from apt_sim.tasks.task import Skill


@dataclass(frozen=True, kw_only=True)
class DemonstratorParams:
    """What a user may choose; the rest is the contract's."""

    contract: str = parameter('', 'path of the robot contract (YAML)', mutability=Mutability.NEVER, required=True)
    skills: tuple[str, ...] = parameter((Skill.PICK.value, Skill.PLACE.value),
                                        'what to demonstrate: pick, place, hand_over, push',
                                        mutability=Mutability.NEVER)
    episodes: int = parameter(0, 'successful demonstrations after which the program ends; 0 goes on for ever',
                              mutability=Mutability.NEVER, lower=0, upper=10**6)
    seed: int = parameter(0, 'of the first scene; each further one takes the next', mutability=Mutability.NEVER,
                          lower=0, upper=2**31 - 1)
    await_recorder: bool = parameter(False, 'begin only when somebody listens to the episode marks',
                                     mutability=Mutability.NEVER)

    def __post_init__(self) -> None:
        known = [skill.value for skill in Skill]
        unknown = sorted(set(self.skills) - set(known))
        if unknown or not self.skills:
            raise ValueError(f'skills is {", ".join(unknown) or "empty"}, expected one or more of '
                             f'{", ".join(known)}')
