"""Interface of the published planner, for Python programs without ROS: frames in, poses out.

Names, arguments, frames and results are those of the released code, so that its evaluation scripts run. It plans with
the node's planner. The short import is ``from apt_policy import TrajPlanner``.

Letters: S samples, T horizon, A arms.
"""

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import RobotContract, load_contract
from apt_policy.core.policy_facts import PolicyFacts, policy_facts_from_dict
from apt_policy.core.prompt import clean_prompt
from apt_policy.core.sample import ArmState, Chunk, Observation
from apt_policy.inference.chunking import ensemble_weights
from apt_policy.inference.obs_frame import FrameError, ObsFrame, read_obs_frame
from apt_policy.inference.planner import PlanError, build_planner
from apt_policy.inference.planner_config import PlannerConfig
from apt_policy.inference.trajectory import Poses, Trajectory, average
from apt_policy.model.checkpoint import Checkpoint, CheckpointError, read_checkpoint


class PlannedAction(NamedTuple):
    """Planned actions of all arms; the field order is that of the released code."""

    future_ee_poses: NDArray[np.float64]
    """(S, T, A, 4, 4) ``world_from_ee``."""
    future_grippers: NDArray[np.float64]
    """(S, T, A), 0 closed .. 1 open."""
    future_time: NDArray[np.float64]
    """(T,) times on the clock of the frames' timestamps [s]."""
    traj_img: None = None
    """Image with the drawn trajectory in the released code; always None here."""


class TrajPlanner:
    """Planner from the newest frame for one instruction. Another thread may add the frames."""

    def __init__(self, ckpt_path: str | Path, device: str = 'auto', ensemble: int = 0, use_ema: bool = False, *,
                 contract: RobotContract | str | Path | None = None, vlm: str = '', dtype: str = 'auto',
                 denoising_steps: int = 20, noise_scale: float = 1.0, seed: int = 0) -> None:
        """Load the weights.

        Args:
            ckpt_path: checkpoint folder, folder of a training run, or a published ``ckpt_latest.pt``.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            ensemble: number of the newest plans that are averaged where they overlap, older ones with lower weight:
                0 or 1 averages none, -1 all of them. (The released code accepts the argument and no longer averages.)
            use_ema: use the averaged weights: a published file's ``ema``, a run's ``iter_N_ema``.
            contract: robot contract or its path; needed only for a published file, because the suite's checkpoints
                contain their cameras and arms.
            vlm: hub name or folder of the VLM; empty for the one named in the checkpoint.
            dtype: ``auto``, ``float32`` or ``bfloat16``, as the node's parameter.
            denoising_steps: number of diffusion steps from noise to a plan.
            noise_scale: scale of the initial noise, 0..1; 0 makes sampling deterministic.
            seed: seed of the noise.

        Raises:
            CheckpointError: the checkpoint is absent, corrupt, a VA prior, of another robot, or lacks the averaged
                weights or the robot's facts.
            ContractError: the contract cannot be read.
            VlmError: the VLM cannot be loaded.
            ValueError: the device does not exist, or an argument is out of range.
        """
        config = PlannerConfig(checkpoint=str(ckpt_path), vlm=vlm, device=device, dtype=dtype, use_ema=use_ema,
                                   denoising_steps=denoising_steps, noise_scale=noise_scale, seed=seed)
        given = load_contract(contract) if isinstance(contract, str | Path) else contract
        checkpoint = read_checkpoint(ckpt_path, use_ema=use_ema)
        self._robot = _robot_of(checkpoint) if given is None else given
        self._planner = build_planner(checkpoint, config, self._robot)
        self._prompt: str | None = None
        self._ensemble = _Ensemble(ensemble)
        self._lock = Lock()
        self._newest: ObsFrame | None = None
        self._past: list[tuple[int, tuple[ArmState, ...]]] = []

    @property
    def cameras(self) -> tuple[str, ...]:
        """Keys of the cameras in a frame."""
        return tuple(self._robot.cameras)

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms in the order of a frame's ``ee_pose`` and ``gripper``."""
        return tuple(self._robot.arms)

    def set_prompt(self, prompt_text: str) -> 'TrajPlanner':
        """Set the instruction of the next plans; plans for another instruction are dropped from the ensemble.

        Raises:
            PromptError: the instruction is empty, too long, or contains control characters.
        """
        prompt = clean_prompt(prompt_text)
        if prompt != self._prompt:
            self._ensemble.clear()
        self._prompt = prompt
        return self

    def add_obs_frame(self, obs_frame: Mapping[str, Any]) -> 'TrajPlanner':
        """Add an observation frame; see :func:`~apt_policy.inference.obs_frame.read_obs_frame` for its keys.

        Raises:
            FrameError: the frame is invalid, or not newer than the last one.
        """
        frame = read_obs_frame(obs_frame, self._robot)
        with self._lock:
            if self._newest is not None and frame.stamp_ns <= self._newest.stamp_ns:
                raise FrameError(f'timestamp is {frame.stamp_ns / 1e9} s, that of the last frame was '
                                 f'{self._newest.stamp_ns / 1e9} s; expected a later one. Call reset() between '
                                 'episodes')
            self._newest = frame
            reach_ns = frame.stamp_ns - (self._robot.history - 1) * self._robot.step_ns
            self._past.append((frame.stamp_ns, frame.arms))
            # One frame before the history is kept to interpolate from.
            while len(self._past) > 1 and self._past[1][0] <= reach_ns:
                self._past.pop(0)
        return self

    def get_action(self, sample_num: int = 1) -> PlannedAction:
        """Plan ``sample_num`` times from the newest frame, each from different noise.

        Raises:
            PlanError: there is no frame or no instruction yet, or an arm has no reference camera.
            PromptError: the instruction is too long or contains reserved tokens.
            ValueError: ``sample_num`` is below 1, or above 1 with an ensemble.
        """
        if sample_num < 1 or (sample_num > 1 and self._ensemble.averages):
            raise ValueError(f'sample_num is {sample_num}; expected at least 1, and exactly 1 with an ensemble, which '
                             'averages one plan per frame')
        chunks = self._planner.sample_plans(self._observation(), epoch=0, samples=sample_num)
        plans = [self._ensemble.update(chunk) for chunk in chunks]
        return PlannedAction(np.stack([poses for poses, _ in plans]), np.stack([gripper for _, gripper in plans]),
                             chunks[0].due_ns / 1e9)

    def reset(self) -> 'TrajPlanner':
        """Drop frames and plans, as between two episodes; the instruction is kept."""
        with self._lock:
            self._newest, self._past = None, []
        self._ensemble.clear()
        return self

    def _observation(self) -> Observation:
        with self._lock:
            newest, past = self._newest, list(self._past)
        if newest is None or self._prompt is None:
            raise PlanError('there is no frame yet; call add_obs_frame() first' if newest is None else
                            'there is no instruction yet; call set_prompt() first')
        return Observation(stamp_ns=newest.stamp_ns, prompt=self._prompt, views=newest.views,
                           history=(*self._earlier(newest.stamp_ns, past), newest.arms))

    def _earlier(self, now_ns: int, past: list[tuple[int, tuple[ArmState, ...]]]) -> list[tuple[ArmState, ...]]:
        """Interpolate the past states; before the first frame the state is that of the first frame."""
        steps = np.arange(self._robot.history - 1, 0, -1, dtype=np.int64)
        if not len(steps):
            return []
        known = Poses.from_matrices(np.array([[arm.world_from_ee for arm in arms] for _, arms in past]),
                         np.array([[arm.gripper for arm in arms] for _, arms in past]),
                         np.ones(len(self._robot.arms), np.bool_))
        recorded = Trajectory(np.array([stamp_ns for stamp_ns, _ in past]), known)
        earlier = recorded.interpolate(now_ns - steps * self._robot.step_ns)
        return [tuple(ArmState(world_from_ee=pose, gripper=float(opening)) for pose, opening in zip(*row, strict=True))
                for row in zip(*earlier.to_matrices(), strict=True)]


class _Ensemble:
    """Ensemble of the newest plans, averaged where they overlap, with the weights of the released code."""

    def __init__(self, size: int) -> None:
        """Keep the newest ``size`` plans, or all that still overlap if it is negative."""
        self.averages = size not in (0, 1)
        self._plans: deque[Trajectory] = deque(maxlen=None if size < 0 else max(size, 1))

    def clear(self) -> None:
        """Drop all plans."""
        self._plans.clear()

    def update(self, chunk: Chunk) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Add a plan; return poses (T, A, 4, 4) and openings (T, A), averaged with the earlier plans."""
        if not self.averages:
            return chunk.world_from_ee, chunk.gripper
        times_ns = chunk.due_ns
        poses = Poses.from_matrices(chunk.world_from_ee, chunk.gripper, chunk.valid_arms)
        self._plans.append(Trajectory(times_ns, poses))
        while self._plans[0].end_ns < times_ns[0]:
            self._plans.popleft()
        weights = ensemble_weights(len(self._plans))
        # Plans end one after the other, so the rows split into stretches covered by the same plans.
        covered = np.array([times_ns <= plan.end_ns for plan in self._plans])
        ends = np.flatnonzero((covered[:, 1:] != covered[:, :-1]).any(axis=0)) + 1
        parts = []
        for stretch in np.split(np.arange(len(times_ns)), ends):
            there = covered[:, stretch[0]]
            members = [plan.interpolate(times_ns[stretch])
                       for plan, counts in zip(self._plans, there, strict=True) if counts]
            parts.append(average(members, weights[there]).to_matrices())
        world_from_ee, gripper = (np.concatenate(values) for values in zip(*parts, strict=True))
        return world_from_ee, gripper


def _robot_of(checkpoint: Checkpoint) -> PolicyFacts:
    try:
        return policy_facts_from_dict(checkpoint.contract or {}, source=checkpoint.source)
    except KeyError as error:
        raise CheckpointError(f'{checkpoint.source} does not contain the cameras and arms it was trained with (no '
                              f'{error}); give contract=, the path of a robot contract such as config/aloha.yaml'
                              ) from error
