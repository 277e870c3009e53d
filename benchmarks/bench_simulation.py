"""Processor time of the simulated ALOHA, and tracking error of its arms."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

# Rendering needs no window system, and the cameras open their own context.
os.environ['MUJOCO_GL'] = 'disabled'

import mujoco
import numpy as np
from ledger import record

from apt_control.kinematics import arm_kinematics
from apt_control.solver import ArmSolver
from apt_policy.core.contract import RobotContract, load_contract
from apt_policy.core.geometry import invert_pose
from apt_sim.world.cameras import CameraRig
from apt_sim.world.physics import Simulation

COMMAND = 'python benchmarks/bench_simulation.py'
CONTRACT = Path(__file__).resolve().parents[1] / 'apt_bringup' / 'config' / 'aloha_sim.yaml'


def main() -> None:
    contract = load_contract(CONTRACT)
    simulation = Simulation(contract)
    record(name='sim_physics_step_all_asleep_us', value=1e6 * step_s(simulation), unit='us', goal='', command=COMMAND)
    simulation.model.opt.enableflags &= ~int(mujoco.mjtEnableBit.mjENBL_SLEEP)
    physics_s = step_s(simulation)
    record(name='sim_physics_step_all_awake_us', value=1e6 * physics_s, unit='us', goal='', command=COMMAND)
    renders = render_s(simulation)
    record(name='sim_render_320x240_ms', value=1e3 * renders, unit='ms', goal='', command=COMMAND)
    image_rate_hz = sum(camera.rate_hz for camera in contract.cameras.values())
    share = physics_s / simulation.settings.timestep_s + image_rate_hz * renders
    record(name='sim_core_share', value=share, unit='cores', goal='<= 0.5', command=COMMAND)
    position_mm, step_ms = follow_circle(contract, simulation)
    record(name='sim_tracking_error_max_mm', value=position_mm, unit='mm', goal='<= 3', command=COMMAND)
    record(name='ik_step_ms', value=step_ms, unit='ms', goal='', command=COMMAND)


def median_s(work: Callable[[], object], times: int) -> float:
    """Return the median processor time of a call over all threads [s]."""
    work()
    spent = []
    for _ in range(times):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return float(np.median(spent))


def step_s(simulation: Simulation) -> float:
    """Return the processor time of a physics step with all objects at rest [s]."""
    simulation.reset(0)
    simulation.step(250)
    return median_s(lambda: simulation.step(50), 20) / 50


def render_s(simulation: Simulation) -> float:
    """Return the mean processor time of an image over the cameras [s]."""
    with CameraRig(simulation) as rig:
        return float(np.mean([median_s(partial(rig.render, name), 40)
                              for name in simulation.contract.cameras]))


def follow_circle(contract: RobotContract, simulation: Simulation) -> tuple[float, float]:
    """Return the largest distance of both hands from a 10 cm circle [mm], and the processor time of an IK step [ms]."""
    simulation.reset(0)
    period_s = 1.0 / contract.control_rate_hz
    kinematics = arm_kinematics(contract)
    solvers = {name: ArmSolver(kinematics[name], arm, contract.safety, period_s=period_s)
               for name, arm in contract.arms.items()}
    joints = {name: np.array(arm.start) for name, arm in contract.arms.items()}
    centres = {name: kinematics[name].base_from_ee(joints[name]) for name in joints}
    errors, spent = [], []
    for tick in range(400):
        angle = 2 * np.pi * tick / 200
        for name, arm in contract.arms.items():
            target = centres[name].copy()
            target[1:3, 3] += 0.05 * np.array([np.sin(angle), np.cos(angle) - 1.0])
            start = time.process_time()
            joints[name] = solvers[name].step(joints[name], target).joints
            spent.append(time.process_time() - start)
            simulation.command_joints(name, joints[name])
            reached = invert_pose(arm.world_from_base.matrix) @ simulation.world_from_ee(name)
            errors.append(np.linalg.norm(reached[:3, 3] - target[:3, 3]))
        simulation.step(10)
    # Both hands start at rest, so the first quarter of the circle does not count.
    return 1e3 * max(errors[100:]), 1e3 * float(np.median(spent))


if __name__ == '__main__':
    main()
