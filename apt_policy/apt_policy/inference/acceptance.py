"""Whether a planner's answer can be executed at all.

It checks form, not wisdom: what a well-formed plan may do to the arms is the safety
filter's matter.
"""

import numpy as np

from apt_policy.core.geometry import is_rigid
from apt_policy.core.sample import Hold, HoldReason
from apt_policy.inference.ports import Planned


def defect(planned: Planned) -> Hold | None:
    """What is wrong with a chunk, None if nothing is; the chunk must then be discarded."""
    chunk, arms = planned.chunk, planned.request.observation.arms
    rows, count = len(chunk.gripper), len(arms)
    got = (chunk.world_from_ee.shape, chunk.gripper.shape, chunk.valid_arms.shape)
    if rows == 0 or got != ((rows, count, 4, 4), (rows, count), (count,)) or chunk.step_ns <= 0:
        return _failed('the planner returned poses {}, grippers {}, arms {}'.format(*got)
                       + f' and a step of {chunk.step_ns} ns; expected (T, {count}, 4, 4), (T, {count}), '
                       f'({count},) and a step above 0')
    absent = [index for index, arm in enumerate(arms) if arm is None and chunk.valid_arms[index]]
    if absent:
        return _failed(f'the planner moves arm {absent[0]}, which was absent from its observation')
    poses = chunk.world_from_ee[:, chunk.valid_arms]
    if not (np.isfinite(poses).all() and np.isfinite(chunk.gripper[:, chunk.valid_arms]).all()):
        return Hold(reason=HoldReason.NON_FINITE, detail='the planner returned a chunk with NaN or infinity')
    if not is_rigid(poses):
        return _failed('the planner returned a matrix that is no rigid pose')
    return None


def _failed(detail: str) -> Hold:
    return Hold(reason=HoldReason.INFERENCE_FAILED, detail=detail)
