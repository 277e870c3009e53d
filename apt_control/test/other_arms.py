"""Arms that are no ViperX, as contracts, each with an oracle that shares no code with the suite.

Both stand on the contract of the simulated ALOHA, of which they replace the left arm and keep nothing that has to do
with joints.
"""

import numpy as np

from apt_policy.core.contract import contract_from_dict, contract_to_dict

# franka_description, robots/panda/joint_limits.yaml; the speed is that of its slowest joints.
PANDA_LOWER = (-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973)
PANDA_UPPER = (2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973)
PANDA_VELOCITY = 2.175
PANDA_READY = (0.0, -0.7854, 0.0, -2.3562, 0.0, 1.5708, 0.7854)
# franka_description, robots/common/franka_arm.xacro: origin xyz [m] and roll [quarter turns] of joints 1 to 7, all
# about z, and of the flange (joint 8).
PANDA_ORIGINS = (((0, 0, 0.333), 0), ((0, 0, 0), -1), ((0, -0.316, 0), 1), ((0.0825, 0, 0), 1),
                 ((-0.0825, 0.384, 0), -1), ((0, 0, 0), 1), ((0.088, 0, 0), 1))
PANDA_FLANGE = (0, 0, 0.107)
# Franka's documentation of the Franka Control Interface, "Denavit-Hartenberg parameters" (Craig's convention):
# a [m], d [m], alpha [quarter turns] of joints 1 to 7, and d of the flange.
PANDA_DH = ((0, 0.333, 0), (0, 0, -1), (0, 0.316, 1), (0.0825, 0, 1), (-0.0825, 0.384, -1), (0, 0, 1), (0.088, 0, 1))


def panda_base_from_ee(joints):
    """(4, 4) by Craig's product of Denavit-Hartenberg transforms."""
    pose = np.eye(4)
    for (a, d, quarters), theta in zip((*PANDA_DH, (0, PANDA_FLANGE[2], 0)), (*joints, 0.0), strict=True):
        ca, sa = np.cos(quarters * np.pi / 2), np.sin(quarters * np.pi / 2)
        c, s = np.cos(theta), np.sin(theta)
        pose = pose @ [[c, -s, 0, a], [s * ca, c * ca, -sa, -d * sa], [s * sa, c * sa, ca, d * ca], [0, 0, 0, 1]]
    return pose


def panda(contract):
    """The contract of one Franka Panda."""
    halves = [quarters * np.pi / 4 for _, quarters in PANDA_ORIGINS]
    links = [{'place': {'translation': place, 'quaternion_xyzw': (np.sin(half), 0, 0, np.cos(half))}, 'axis': (0, 0, 1)}
             for (place, _), half in zip(PANDA_ORIGINS, halves, strict=True)]
    return _with_arm(contract, links, {'translation': PANDA_FLANGE}, PANDA_LOWER, PANDA_UPPER, PANDA_READY,
                     PANDA_VELOCITY)


class Crooked:
    """An arm of any number of joints whose places and axes are parallel to nothing, drawn from a seed."""

    def __init__(self, joints, seed=7):
        random = np.random.default_rng((joints, seed))
        self.axes = random.normal(size=(joints, 3))
        self.axes /= np.linalg.norm(self.axes, axis=1, keepdims=True)
        self.offsets = random.uniform(-0.05, 0.05, (joints + 1, 3)) + (0.0, 0.0, 0.15)
        turns = random.normal(size=(joints + 1, 4)) * (0.3, 0.3, 0.3, 0.0) + (0.0, 0.0, 0.0, 1.0)
        self.quaternions = turns / np.linalg.norm(turns, axis=1, keepdims=True)
        self.start = random.uniform(-0.4, 0.4, joints)

    def contract(self, contract):
        places = [{'translation': tuple(offset), 'quaternion_xyzw': tuple(turn)}
                  for offset, turn in zip(self.offsets, self.quaternions, strict=True)]
        links = [{'place': place, 'axis': tuple(axis)} for place, axis in zip(places, self.axes, strict=False)]
        count = len(links)
        return _with_arm(contract, links, places[-1], (-2.5,) * count, (2.5,) * count, tuple(self.start), 2.0)

    def base_from_ee(self, joints):
        """(4, 4) by Rodrigues' formula, one joint after the other."""
        pose = np.eye(4)
        for offset, quaternion, axis, angle in zip(self.offsets, self.quaternions, [*self.axes, np.zeros(3)],
                                                   [*joints, 0.0], strict=True):
            sine = np.linalg.norm(quaternion[:3])
            turn = _rodrigues(quaternion[:3] / sine, 2 * np.arctan2(sine, quaternion[3]))
            place = np.eye(4)
            place[:3, :3], place[:3, 3] = turn @ _rodrigues(axis, angle), offset
            pose = pose @ place
        return pose


def _rodrigues(axis, angle):
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _with_arm(contract, links, ee, lower, upper, start, velocity):
    fields = contract_to_dict(contract)
    arm = fields['arms']['left']
    cameras = {'cam_high': fields['cameras']['cam_high']}
    arm.update(namespace='other', joints=[f'joint{index + 1}' for index in range(len(links))],
               joint_lower=lower, joint_upper=upper, joint_velocity=velocity, start=start, base_frame='other/base',
               ee_frame='other/flange', reference_cameras=['cam_high'], workspace=None,
               chain={'links': links, 'ee': ee}, world_from_base={'translation': (0.0, 0.0, 0.0)})
    return contract_from_dict({**fields, 'name': 'other', 'arms': {'only': arm}, 'cameras': cameras}, source='test')
