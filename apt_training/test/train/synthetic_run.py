"""Runs on synthetic samples, as one rank of many: ``python synthetic_run.py SPECS.json``.

The JSON file describes each run; its results are in the run's folder and logs.
"""

import json
import logging
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from apt_policy.core.stop import stop_requests
from apt_policy.model.batch import Images, RobotState
from apt_policy.model.config import ExpertSize, TrainingStage, VlmConfig, VlmMode
from apt_policy.model.policy import TrainingBatch
from apt_training.train.config import (
    BackendKind,
    CheckpointConfig,
    EmaConfig,
    OptimConfig,
    TrainConfig,
    TrainingPrecision,
)
from apt_training.train.distributed import init_distributed
from apt_training.train.initialize import InitFrom
from apt_training.train.objective import MicroBatch
from apt_training.train.run import STOPPED
from apt_training.train.run_folder import RunFolder
from apt_training.train.stage_run import StageRun, train_stage
from apt_training.train.trainer import TrainingResult

FACTS = {'arms': ['left', 'right'], 'cameras': ['one', 'two'], 'image_size': 64, 'horizon': 4, 'history': 1,
         'step_s': 0.1}


class SyntheticBatches:
    """Batch source whose n-th batch is the same on whichever rank it is drawn."""

    def __init__(self, rank: int, world_size: int, batch_size: int, *, bad: set[int], slow_s: float,
                 die_at: int) -> None:
        self.rank, self.world_size, self.batch_size = rank, world_size, batch_size
        self.bad, self.slow_s, self.die_at = bad, slow_s, die_at
        self.drawn = 0

    def next_batch(self) -> MicroBatch:
        index = self.drawn * self.world_size + self.rank
        self.drawn += 1
        if index == self.die_at:
            os.kill(os.getpid(), 9)
        time.sleep(self.slow_s)
        return synthetic_micro_batch(self.batch_size, seed=index, bad=index in self.bad)

    def state_dict(self) -> dict[str, int]:
        return {'drawn': self.drawn * self.world_size}

    def load_state_dict(self, state) -> None:
        self.drawn = state['drawn'] // self.world_size

    def close(self) -> None:
        pass


def synthetic_micro_batch(batch: int, *, seed: int, bad: bool = False) -> MicroBatch:
    random = torch.Generator().manual_seed(seed)
    eye = torch.eye(4).expand(batch, 2, 4, 4).clone()
    eye[..., :3, 3] = torch.rand(batch, 2, 3, generator=random)
    history = torch.cat([eye.flatten(2), torch.rand(batch, 2, 1, generator=random)], -1)[:, None]
    future = history.expand(batch, 4, 2, 17).clone()
    future[..., 3] += torch.linspace(0, 0.1, 4)[:, None]
    if bad:
        future[..., 3] = torch.nan
    images = Images(rgb=torch.rand(batch, 2, 3, 64, 64, generator=random),
                    mask=torch.ones(batch, 2, 64, 64, dtype=torch.bool),
                    norm_xy=torch.randn(batch, 2, 2, 64, 64, generator=random), prompts=('lift the cube',) * batch)
    robot = RobotState(world_from_camera=eye, world_from_ee=eye, world_from_reference=eye, history=history,
                       valid_arms=torch.ones(batch, 2, dtype=torch.bool))
    return MicroBatch(batch=TrainingBatch(images=images, robot=robot, future=future),
                      sources=tuple(f'invented/batch_{seed}:{row}' for row in range(batch)))


def make_config(spec) -> TrainConfig:
    config = TrainConfig(
        recipe='invented', stage=TrainingStage.parse(spec.get('stage', '0')), expert=ExpertSize.TINY,
        vlm=VlmConfig(name='tiny', dtype='float32', mode=VlmMode(spec.get('vlm_mode', 'frozen')),
                      gradient_checkpointing=spec.get('gc', False)),
        optim=OptimConfig(lr=1e-3, vlm_lr=1e-3, warmup=2),
        precision=TrainingPrecision(spec.get('precision', 'float32')), log_every=1,
        checkpoint=CheckpointConfig(interval=spec.get('save_every', 100), keep_latest=2, milestone_interval=0),
        ema=EmaConfig(decay=0.5, start=2) if spec.get('ema') else None,
        iterations=spec['iterations'], batch_size=spec.get('batch', 2),
        accumulation_steps=spec.get('accumulation', 1),
        backend=BackendKind(spec.get('backend', 'ddp')), zero_stage=spec.get('zero', 2), workers=0,
        max_bad_batches=spec.get('max_bad', 3))
    return replace(config, freeze_prior=spec.get('freeze_prior', False), noise_samples=spec.get('draws', 1))


def run(spec, distributed, stop) -> TrainingResult:
    config, folder = make_config(spec), Path(spec['folder'])
    checkpoint = Path(spec['checkpoint']) if 'checkpoint' in spec else None
    job = StageRun(config=config, run=RunFolder(folder), logs=folder / 'logs', contract=FACTS,
                   init_from=InitFrom(resume=spec.get('resume', False), checkpoint=checkpoint))

    def open_batches(config, distributed, policy):
        return SyntheticBatches(distributed.rank, distributed.world_size, config.batch_size,
                                bad=set(spec.get('bad', ())), slow_s=spec.get('slow_s', 0.0),
                                die_at=spec.get('die_at', -1))

    return train_stage(job, distributed, open_batches, stop)


def main(path: str) -> int:
    """Train several runs in a row, which share the time that processes take to start."""
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    specs = json.loads(Path(path).read_text())
    group = any(make_config(spec).backend is BackendKind.DEEPSPEED for spec in specs)
    with stop_requests() as stop, init_distributed(always_create_group=group) as distributed:
        for spec in specs:
            if run(spec, distributed, stop) is TrainingResult.STOPPED:
                return STOPPED
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1]))
