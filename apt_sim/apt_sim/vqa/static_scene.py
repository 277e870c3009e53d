"""Static scenes: a table laid out from a seed, and hands posed above it, some of them holding an object.

Nothing is simulated over time; inverse kinematics poses the hands.
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray

from apt_control.kinematics import ArmKinematics
from apt_control.solver import ArmSolver
from apt_policy.core.contract import RobotContract
from apt_policy.core.geometry import invert_pose, make_pose
from apt_sim.tasks.grasp import EE_FROM_TOOL_CENTRE, GraspGeometry
from apt_sim.tasks.task import GroundTruth
from apt_sim.tasks.task_scene import ground_truth
from apt_sim.vqa.annotations import (
    CameraView,
    SceneAnnotations,
    camera_from_point,
    image_cell,
    image_position,
    table_cell,
)
from apt_sim.world.cameras import CameraImage, CameraRig, intrinsics
from apt_sim.world.motors import FINGER_CLOSED, FINGER_OPEN
from apt_sim.world.objects import OBJECT_SIDE, TRAY_SIZE, object_spec
from apt_sim.world.physics import Simulation

# Cumulative probabilities: a hand rests, is near an object, holds one, or is anywhere above the table.
_AT_REST, _NEAR_OBJECT, _HOLDING = 0.2, 0.6, 0.75
# Largest height of a hand, and standard deviation of its offset from an object at that height [m].
_HIGHEST = 0.24
_BESIDE = 0.03
_SOLVER_STEPS = 200
# Errors below which the inverse kinematics has converged [m, rad].
_POSITION_TOLERANCE, _ROTATION_TOLERANCE = 0.004, 0.05
# Annotated points lie at this share of an object's half size: points at its corners would mark neighbouring cells.
_INWARDS = 0.8
# The solver limits each step to the speed of the hand; with this period a few steps cross the table.
_PERIOD_S = 0.2


class StaticSceneSampler:
    """Sampler of static scenes in one simulation."""

    def __init__(self, contract: RobotContract, simulation: Simulation) -> None:
        """Create the inverse kinematics of each arm.

        Raises:
            KinematicsError: an arm has no chain in the contract.
        """
        self._contract, self._simulation = contract, simulation
        self._hands = {name: GraspGeometry(contract, name) for name in contract.arms}
        self._solvers = {name: ArmSolver(ArmKinematics(name, arm), arm, contract.safety, period_s=_PERIOD_S)
                         for name, arm in contract.arms.items()}

    def sample(self, seed: int) -> GroundTruth:
        """Reset the simulation to ``seed``, pose the hands and return the ground truth."""
        random = np.random.default_rng((seed, 0))
        self._simulation.reset(seed)
        begin = ground_truth(self._simulation)
        joints, fingers, held = {}, {}, {}
        for name, arm in self._contract.arms.items():
            choice = random.random()
            joints[name], fingers[name] = np.array(arm.start), FINGER_OPEN
            if choice < _AT_REST:
                continue
            target, nearby = self._target(name, begin, random, anywhere=choice >= _HOLDING)
            reached = self._solve(name, target)
            if reached is None:
                continue
            joints[name] = reached
            fingers[name] = random.uniform(FINGER_CLOSED, FINGER_OPEN)
            if _NEAR_OBJECT <= choice < _HOLDING and nearby and nearby not in held:
                held[nearby] = _between_fingers(target, random)
                fingers[name] = FINGER_CLOSED + 0.5 * (FINGER_OPEN - FINGER_CLOSED)
        self._simulation.set_static_state(joints, fingers, held)
        return ground_truth(self._simulation)

    def _target(self, arm: str, scene: GroundTruth, random: np.random.Generator, *,
                anywhere: bool) -> tuple[NDArray[np.float64], str]:
        """Return world_from_ee (4, 4), and the name of the object near the hand or an empty string."""
        hand = self._hands[arm]
        reachable = [name for name, pose in scene.objects.items() if hand.can_reach(pose[:3, 3])]
        height = hand.grasp_height + random.beta(1.0, 1.5) * (_HIGHEST - hand.grasp_height)
        if anywhere or not reachable:
            box = self._contract.arms[arm].workspace
            assert box is not None, 'required by the grasp geometry'
            point = random.uniform(box.lower, box.upper)
            return hand.pose_above(point, hand.bearing(point) + random.normal(0, 0.4), height), ''
        name = reachable[random.integers(len(reachable))]
        pose = scene.objects[name].copy()
        pose[:2, 3] += random.normal(0, _BESIDE, 2) * (height / _HIGHEST)
        return hand.pose_above(pose[:3, 3], hand.grasp_yaw(pose, object_spec(name).shape), height), name

    def _solve(self, name: str, world_from_ee: NDArray[np.float64]) -> NDArray[np.float64] | None:
        arm = self._contract.arms[name]
        base_from_ee = invert_pose(arm.world_from_base.matrix) @ world_from_ee
        joints = np.array(arm.start)
        for _ in range(_SOLVER_STEPS):
            solution = self._solvers[name].step(joints, base_from_ee)
            if solution.position_error < _POSITION_TOLERANCE and solution.rotation_error < _ROTATION_TOLERANCE:
                return solution.joints
            joints = solution.joints
        return None


def render_and_annotate(simulation: Simulation, rig: CameraRig,
                        scene: GroundTruth) -> tuple[dict[str, CameraImage], SceneAnnotations]:
    """Render all cameras of a scene and annotate it.

    Args:
        simulation: simulation in the state of the scene.
        rig: renderer of its cameras.
        scene: ground truth of the scene.

    Returns:
        The images by camera, and the annotations.
    """
    contract = simulation.contract
    images = {name: rig.render(name) for name in contract.cameras}
    views = {name: CameraView(size=image.rgb.shape[0], intrinsics=intrinsics(simulation, name),
                              world_from_camera=image.world_from_camera) for name, image in images.items()}
    hands = {name: GraspGeometry(contract, name) for name in contract.arms}
    corners = {name: _corners(pose, _size(name)) for name, pose in scene.objects.items()}
    corners |= {f'{colour} tray': _corners(pose, TRAY_SIZE) for colour, pose in scene.trays.items()}
    visible = {camera: {name: points for name, candidates in corners.items()
                        if (points := tuple(filter(None, (image_position(point, view) for point in candidates))))}
               for camera, view in views.items()}
    return images, SceneAnnotations(
        objects={name: table_cell(pose[:3, 3]) for name, pose in scene.objects.items()},
        trays={colour: table_cell(pose[:3, 3]) for colour, pose in scene.trays.items()},
        held={arm: name for arm, state in scene.arms.items() for name, pose in scene.objects.items()
              if _is_held(state.world_from_ee, pose)},
        nearer_arm={name: min(hands, key=lambda arm: hands[arm].distance_from_base(pose[:3, 3]))
                    for name, pose in scene.objects.items()},
        image_cells={camera: {name: image_cell(where) for name, pose in scene.objects.items()
                              if (where := image_position(pose[:3, 3], view)) is not None}
                     for camera, view in views.items()},
        image_points=visible,
        camera_positions={camera: {name: _metres(camera_from_point(corners[name][0], views[camera])) for name in there}
                          for camera, there in visible.items()})


def _metres(point: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = point.tolist()
    return x, y, z


def _size(name: str) -> tuple[float, float, float]:
    return object_spec(name).shape.length, OBJECT_SIDE, OBJECT_SIDE


def _corners(pose: NDArray[np.float64], size: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return the centre of an object and points near its corners (9, 3) in the world [m]."""
    signs = np.array([(0, 0, 0), *product((-1, 1), repeat=3)])
    return (signs * np.array(size) * _INWARDS / 2) @ pose[:3, :3].T + pose[:3, 3]


def _between_fingers(world_from_ee: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Return world_from_object (4, 4) of an object held by a hand that points down."""
    centre = (world_from_ee @ [*EE_FROM_TOOL_CENTRE, 1.0])[:3] + [0.0, 0.0, random.normal(0, 0.004)]
    along, across = world_from_ee[:3, 2], world_from_ee[:3, 1]
    return make_pose(np.column_stack([along, across, (0.0, 0.0, 1.0)]), centre)


def _is_held(world_from_ee: NDArray[np.float64], world_from_object: NDArray[np.float64]) -> bool:
    tool = (world_from_ee @ [*EE_FROM_TOOL_CENTRE, 1.0])[:3]
    lifted = world_from_object[2, 3] > OBJECT_SIDE
    return bool(lifted and np.linalg.norm(tool - world_from_object[:3, 3]) < OBJECT_SIDE / 2)
