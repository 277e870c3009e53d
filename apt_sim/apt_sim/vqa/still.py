"""Still scenes: a table laid out from a seed, and hands somewhere above it, some of them holding a thing.

Nothing moves and nothing is simulated; hands are where inverse kinematics can put them.
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray

from apt_control.kinematics import ArmKinematics
from apt_control.solver import ArmSolver
from apt_policy.core.contract import RobotContract
from apt_policy.core.geometry import invert_pose, make_pose
from apt_sim.tasks.grasp import EE_FROM_TOOL_CENTRE, GraspGeometry
from apt_sim.tasks.stage import situation
from apt_sim.tasks.task import Situation
from apt_sim.vqa.sight import Picture, Sight, part, place, point_in, seen_from
from apt_sim.world.cameras import CameraRig, Shot, intrinsics
from apt_sim.world.physics import FINGER_CLOSED, FINGER_OPEN, Simulation
from apt_sim.world.things import OBJECT_SIDE, TRAY_SIZE, thing

# A hand rests, is about a thing, holds one, or is anywhere above the table.
_AT_REST, _ABOUT, _HOLDING = 0.2, 0.6, 0.75
_HIGHEST = 0.24
_BESIDE = 0.03
_SOLVER_STEPS = 200
_NEAR_ENOUGH, _STRAIGHT_ENOUGH = 0.004, 0.05
# Of a thing's half size: at its very corners a neighbouring part of the picture would be marked for nothing.
_INWARDS = 0.8
# Each step of the solver is held to the speed of the hand: with this period a few steps cross the table.
_PERIOD_S = 0.2


class StillDrawer:
    """Draws still scenes of one simulation."""

    def __init__(self, contract: RobotContract, simulation: Simulation) -> None:
        """
        Raises:
            KinematicsError: see :class:`ArmKinematics`.
        """
        self._contract, self._simulation = contract, simulation
        self._hands = {name: GraspGeometry(contract, name) for name in contract.arms}
        self._solvers = {name: ArmSolver(ArmKinematics(name, arm), arm, contract.safety, period_s=_PERIOD_S)
                         for name, arm in contract.arms.items()}

    def draw(self, seed: int) -> Situation:
        """Lay the table out for ``seed``, and place the hands."""
        random = np.random.default_rng((seed, 0))
        self._simulation.reset(seed)
        begin = situation(self._simulation)
        joints, fingers, held = {}, {}, {}
        for name, arm in self._contract.arms.items():
            fate = random.random()
            joints[name], fingers[name] = np.array(arm.start), FINGER_OPEN
            if fate < _AT_REST:
                continue
            target, thing_there = self._target(name, begin, random, anywhere=fate >= _HOLDING)
            reached = self._solve(name, target)
            if reached is None:
                continue
            joints[name] = reached
            fingers[name] = random.uniform(FINGER_CLOSED, FINGER_OPEN)
            if _ABOUT <= fate < _HOLDING and thing_there and thing_there not in held:
                held[thing_there] = _between_fingers(target, random)
                fingers[name] = FINGER_CLOSED + 0.5 * (FINGER_OPEN - FINGER_CLOSED)
        self._simulation.pose_still(joints, fingers, held)
        return situation(self._simulation)

    def _target(self, arm: str, scene: Situation, random: np.random.Generator, *,
                anywhere: bool) -> tuple[NDArray[np.float64], str]:
        """(4, 4) world_from_ee, and the thing it has to do with."""
        hand = self._hands[arm]
        reachable = [name for name, pose in scene.objects.items() if hand.reaches(pose[:3, 3])]
        height = hand.grasp_height + random.beta(1.0, 1.5) * (_HIGHEST - hand.grasp_height)
        if anywhere or not reachable:
            box = self._contract.arms[arm].workspace
            assert box is not None, 'the geometry of a grasp has asked for it'
            point = random.uniform(box.lower, box.upper)
            return hand.above(point, hand.bearing(point) + random.normal(0, 0.4), height), ''
        name = reachable[random.integers(len(reachable))]
        pose = scene.objects[name].copy()
        pose[:2, 3] += random.normal(0, _BESIDE, 2) * (height / _HIGHEST)
        return hand.above(pose[:3, 3], hand.facing_yaw(pose, thing(name).shape), height), name

    def _solve(self, name: str, world_from_ee: NDArray[np.float64]) -> NDArray[np.float64] | None:
        arm = self._contract.arms[name]
        base_from_ee = invert_pose(arm.world_from_base.matrix) @ world_from_ee
        joints = np.array(arm.start)
        for _ in range(_SOLVER_STEPS):
            solution = self._solvers[name].step(joints, base_from_ee)
            if solution.position_error < _NEAR_ENOUGH and solution.rotation_error < _STRAIGHT_ENOUGH:
                return solution.joints
            joints = solution.joints
        return None


def look(simulation: Simulation, rig: CameraRig, scene: Situation) -> tuple[dict[str, Shot], Sight]:
    """Take all pictures of a scene, and say what is to be seen in it."""
    contract = simulation.contract
    shots = {name: rig.shoot(name) for name in contract.cameras}
    pictures = {name: Picture(size=shot.rgb.shape[0], intrinsics=intrinsics(simulation, name),
                              world_from_camera=shot.world_from_camera) for name, shot in shots.items()}
    hands = {name: GraspGeometry(contract, name) for name in contract.arms}
    corners = {name: _corners(pose, _size(name)) for name, pose in scene.objects.items()}
    corners |= {f'{colour} tray': _corners(pose, TRAY_SIZE) for colour, pose in scene.trays.items()}
    marked = {camera: {name: points for name, of_thing in corners.items()
                       if (points := tuple(filter(None, (point_in(point, picture) for point in of_thing))))}
              for camera, picture in pictures.items()}
    return shots, Sight(
        objects={name: place(pose[:3, 3]) for name, pose in scene.objects.items()},
        trays={colour: place(pose[:3, 3]) for colour, pose in scene.trays.items()},
        held={arm: name for arm, state in scene.arms.items() for name, pose in scene.objects.items()
              if _is_held(state.world_from_ee, pose)},
        nearer={name: min(hands, key=lambda arm: hands[arm].distance(pose[:3, 3]))
                for name, pose in scene.objects.items()},
        pictured={camera: {name: part(where) for name, pose in scene.objects.items()
                           if (where := point_in(pose[:3, 3], picture)) is not None}
                  for camera, picture in pictures.items()},
        marked=marked,
        placed={camera: {name: _metres(seen_from(corners[name][0], pictures[camera])) for name in there}
                for camera, there in marked.items()})


def _metres(point: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = point.tolist()
    return x, y, z


def _size(name: str) -> tuple[float, float, float]:
    return thing(name).shape.length, OBJECT_SIDE, OBJECT_SIDE


def _corners(pose: NDArray[np.float64], size: tuple[float, float, float]) -> NDArray[np.float64]:
    """(9, 3) the middle of a thing and points near its corners."""
    signs = np.array([(0, 0, 0), *product((-1, 1), repeat=3)])
    return (signs * np.array(size) * _INWARDS / 2) @ pose[:3, :3].T + pose[:3, 3]


def _between_fingers(world_from_ee: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """(4, 4) world_from_object of what a hand that points down holds."""
    centre = (world_from_ee @ [*EE_FROM_TOOL_CENTRE, 1.0])[:3] + [0.0, 0.0, random.normal(0, 0.004)]
    along, across = world_from_ee[:3, 2], world_from_ee[:3, 1]
    return make_pose(np.column_stack([along, across, (0.0, 0.0, 1.0)]), centre)


def _is_held(world_from_ee: NDArray[np.float64], world_from_object: NDArray[np.float64]) -> bool:
    tool = (world_from_ee @ [*EE_FROM_TOOL_CENTRE, 1.0])[:3]
    lifted = world_from_object[2, 3] > OBJECT_SIDE
    return bool(lifted and np.linalg.norm(tool - world_from_object[:3, 3]) < OBJECT_SIDE / 2)
