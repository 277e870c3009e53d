"""Golden vectors: how their files are read, and what an expert is held against.

Shared by the tests, which run on a CPU, and by ``benchmarks/gpu.py``, which runs on a GPU in both precisions.
"""

import ast
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from apt_policy.model.actions import encode_states
from apt_policy.model.batch import RobotState, VlFeatures
from apt_policy.model.checkpoint import read_checkpoint
from apt_policy.model.expert import Expert
from apt_policy.model.policy import ActionSampler, predict_states
from apt_policy.model.restore import build_expert

ENCODED, EPS, DENOISED, STATES = 'encoded_future_action', 'eps', 'denoised_action', 'pred_future_ee_states'
TOLERANCE = {
    torch.float32: {ENCODED: 8e-6, EPS: 5e-5, DENOISED: 1e-4, STATES: 1e-4},
    # Two and a half times what the CPU's bfloat16 differs (0.8 % of the largest noise, 0.4 % of the largest action);
    # encoding computes in float32 in any case.
    torch.bfloat16: {ENCODED: 8e-6, EPS: 2e-2, DENOISED: 1e-2, STATES: 1e-2}}
"""By precision of the weights and output, as a share of the largest expected entry."""


@dataclass(frozen=True)
class Golden:
    """One file of golden vectors."""

    config: Mapping[str, int]
    weights: Mapping[str, Tensor]
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]

    @property
    def features(self) -> VlFeatures:
        given = self.inputs
        return VlFeatures(inputs_embeds=given['inputs_embeds'], hidden_states=given['hidden_states'],
                          attention_mask=given['attention_mask'], is_vision=given['is_vision_mask'],
                          norm_xy=given['norm_xy_ds'], camera_valid=given['camera_mask'])

    @property
    def robot(self) -> RobotState:
        given = self.inputs
        return RobotState(world_from_camera=given['extrinsics'], world_from_ee=given['current_ee_pose'],
                          world_from_reference=given['action_ref_pose'], history=given['history_ee_states'],
                          valid_arms=given['valid_ee_mask'])

    @property
    def noise(self) -> Tensor:
        """(B, A, T, 10) that denoising starts from."""
        return self.inputs['initial_noise']

    @property
    def horizon(self) -> int:
        return self.noise.shape[2]

    def to(self, device: torch.device) -> 'Golden':
        """The same, inputs and outputs on ``device``."""
        return replace(self, inputs={name: value.to(device) for name, value in self.inputs.items()},
                       outputs={name: value.to(device) for name, value in self.outputs.items()})


@dataclass(frozen=True)
class Difference:
    """The largest difference of one output."""

    output: str
    share: float
    """Of the largest entry that is expected."""
    tolerance: float

    @property
    def within(self) -> bool:
        return self.share <= self.tolerance


def read(path: Path) -> Golden:
    with np.load(path) as file:
        parts: dict[str, dict[str, Tensor]] = {'weights': {}, 'in': {}, 'out': {}}
        for key in file.files:
            if key != 'config':
                part, name = key.split('/', 1)
                parts[part][name] = torch.from_numpy(file[key])
        return Golden(ast.literal_eval(str(file['config'])), parts['weights'], parts['in'], parts['out'])


def expert_of(golden: Golden) -> Expert:
    """Build the expert through the very loader that reads published checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'ckpt_latest.pt'
        torch.save({'weights': dict(golden.weights), 'current_iters': 7}, path)
        checkpoint = read_checkpoint(path)
    steps = {'train_steps': golden.config['diffusion_timesteps'],
             'denoising_steps': golden.config['inference_timesteps']}
    return build_expert(replace(checkpoint, expert=replace(checkpoint.expert, **steps))).eval()


def compare(golden: Golden, output: str, got: Tensor, precision: torch.dtype = torch.float32) -> Difference:
    """Hold ``got`` against the output of that name; absent arms do not count."""
    expected = golden.outputs[output]
    if output == STATES:
        got, expected = got.transpose(1, 2), expected.transpose(1, 2)
    valid = golden.robot.valid_arms
    share = (got.float() - expected)[valid].abs().max() / expected[valid].abs().max()
    return Difference(output, float(share), TOLERANCE[precision][output])


def differences(golden: Golden, expert: Expert) -> list[Difference]:
    """Run the way of inference from the features on, and compare each of its outputs.

    ``expert`` is on the device of ``golden``, in either precision.
    """
    sampler, precision = ActionSampler(expert), expert.dp_head.dtype
    with torch.inference_mode():
        context = expert.observe(golden.features, golden.robot, horizon=golden.horizon)
        eps = expert.predict(context, golden.noise, golden.inputs['timestep'])
    actions = sampler.sample(sampler.observe(golden.features, golden.robot, horizon=golden.horizon), golden.noise)
    states = predict_states(sampler, golden.features, golden.robot, golden.noise)
    encoded = encode_states(golden.inputs['future_ee_states'], golden.robot)
    return [compare(golden, output, got, precision)
            for output, got in ((ENCODED, encoded), (EPS, eps), (DENOISED, actions), (STATES, states))]
