"""The parameters of the IK bridge."""

from dataclasses import dataclass

from apt_policy.ros.params import Mutability, parameter


@dataclass(frozen=True, kw_only=True)
class BridgeParams:
    """What a user may choose; joints, limits, rates and units are the contract's."""

    contract: str = parameter('', 'path of the robot contract (YAML)', mutability=Mutability.NEVER, required=True)
    target_timeout_s: float = parameter(
        0.2, 'a target that is not renewed for this long is not followed any more [s]', mutability=Mutability.NEVER,
        lower=0.02, upper=10.0)
    following_error_rad: float = parameter(
        0.5, 'a joint farther than this from its command stops its arm [rad]', mutability=Mutability.NEVER,
        lower=0.05, upper=3.2)
