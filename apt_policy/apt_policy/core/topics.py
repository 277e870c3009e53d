"""The topics that are the suite's own, and the policy's name; topics of the robot stand in its contract.

All are relative, so that a namespace holds for them too.
"""

from enum import Enum

POLICY_NODE = 'apt_policy'
"""Name of the policy's node, which its services begin with."""

CHUNK = 'apt/chunk'
PLAN_MARKERS = 'apt/plan_markers'
ACTIVE_PROMPT = 'apt/active_prompt'
STATUS = 'apt/status'
DEAD_MAN = 'apt/dead_man'
EPISODE = 'apt/episode'
"""std_msgs/String: one :class:`EpisodeMark` where a demonstration begins or ends."""
SIM_OBJECTS = 'sim/objects'
"""visualization_msgs/MarkerArray: the truth about objects and trays, which no policy may see."""
SIM_REAL_TIME_FACTOR = 'sim/real_time_factor'
"""std_msgs/Float64."""


class EpisodeMark(Enum):
    """What is said on :data:`EPISODE`."""

    BEGIN = 'begin'
    END = 'end'
    DISCARD = 'discard'
    """Ends the episode; it is not to be learned from."""


def target(arm: str) -> str:
    """apt_msgs/EndEffectorTarget."""
    return f'apt/{arm}/target'


def target_pose(arm: str) -> str:
    """geometry_msgs/PoseStamped, in the frame of the arm's base."""
    return f'apt/{arm}/target_pose'


def target_gripper(arm: str) -> str:
    """std_msgs/Float64, opening 0 closed .. 1 open."""
    return f'apt/{arm}/target_gripper'


def ik_status(arm: str) -> str:
    """apt_msgs/IkStatus of the IK bridge."""
    return f'apt/{arm}/ik_status'
