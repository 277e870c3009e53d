"""Topics of the suite and the name of the policy node; the robot's topics are in its contract.

All names are relative, so that they follow the namespace.
"""

from enum import Enum

POLICY_NODE = 'apt_policy'
"""Name of the policy node, the prefix of its services."""

CHUNK = 'apt/chunk'
PLAN_MARKERS = 'apt/plan_markers'
ACTIVE_PROMPT = 'apt/active_prompt'
STATUS = 'apt/status'
DEAD_MAN = 'apt/dead_man'
EPISODE = 'apt/episode'
"""std_msgs/String: one :class:`EpisodeMark` at the start and end of a demonstration."""
SIM_OBJECTS = 'sim/objects'
"""visualization_msgs/MarkerArray: ground truth of objects and trays, not an input of a policy."""
SIM_REAL_TIME_FACTOR = 'sim/real_time_factor'
"""std_msgs/Float64."""


class EpisodeMark(Enum):
    """Message content on :data:`EPISODE`."""

    BEGIN = 'begin'
    END = 'end'
    DISCARD = 'discard'
    """End of an episode that is not used for training."""


def target(arm: str) -> str:
    """Return the topic of apt_msgs/EndEffectorTarget."""
    return f'apt/{arm}/target'


def target_pose(arm: str) -> str:
    """Return the topic of geometry_msgs/PoseStamped targets in the frame of the arm's base."""
    return f'apt/{arm}/target_pose'


def target_gripper(arm: str) -> str:
    """Return the topic of std_msgs/Float64 gripper targets, 0 closed .. 1 open."""
    return f'apt/{arm}/target_gripper'


def ik_status(arm: str) -> str:
    """Return the topic of apt_msgs/IkStatus of the IK bridge."""
    return f'apt/{arm}/ik_status'
