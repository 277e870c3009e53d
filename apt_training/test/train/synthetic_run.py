"""Runs on invented samples, as one process of many: ``python synthetic_run.py SPECS.json``.

What a test wants of each stands in the JSON file; what came out is in the run's folder and logs.
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
from apt_policy.model.config import ExpertSize, Stage, VlmConfig, VlmMode
from apt_policy.model.policy import TrainingBatch
from apt_training.train.config import BackendKind, EmaConfig, KeepConfig, OptimConfig, Precision, TrainConfig
from apt_training.train.objective import Work
from apt_training.train.run import STOPPED
from apt_training.train.saving import RunFolder
from apt_training.train.stage_run import StageRun, train_stage
from apt_training.train.start import Start
from apt_training.train.trainer import Outcome
from apt_training.train.world import join_world

FACTS = {'arms': ['left', 'right'], 'cameras': ['one', 'two'], 'image_size': 64, 'horizon': 4, 'history': 1,
         'step_s': 0.1}


class InventedFeed:
    """The n-th batch of a run is the same whoever draws it."""

    def __init__(self, rank: int, world: int, batch: int, *, bad: set[int], slow_s: float, die_at: int) -> None:
        self.rank, self.world, self.batch = rank, world, batch
        self.bad, self.slow_s, self.die_at = bad, slow_s, die_at
        self.drawn = 0

    def next(self) -> Work:
        index = self.drawn * self.world + self.rank
        self.drawn += 1
        if index == self.die_at:
            os.kill(os.getpid(), 9)
        time.sleep(self.slow_s)
        return invented_work(self.batch, seed=index, bad=index in self.bad)

    def state(self) -> dict[str, int]:
        return {'drawn': self.drawn * self.world}

    def resume(self, state) -> None:
        self.drawn = state['drawn'] // self.world

    def close(self) -> None:
        pass


def invented_work(batch: int, *, seed: int, bad: bool = False) -> Work:
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
    return Work(batch=TrainingBatch(images=images, robot=robot, future=future),
                sources=tuple(f'invented/batch_{seed}:{row}' for row in range(batch)))


def config_of(spec) -> TrainConfig:
    config = TrainConfig(
        recipe='invented', stage=Stage.parse(spec.get('stage', '0')), expert=ExpertSize.TINY,
        vlm=VlmConfig(name='tiny', dtype='float32', mode=VlmMode(spec.get('vlm_mode', 'frozen')),
                      gradient_checkpointing=spec.get('gc', False)),
        optim=OptimConfig(lr=1e-3, vlm_lr=1e-3, warmup=2), precision=Precision(spec.get('precision', 'float32')),
        keep=KeepConfig(every=spec.get('save_every', 100), last=2, milestone_every=0), log_every=1,
        ema=EmaConfig(decay=0.5, start=2) if spec.get('ema') else None,
        iterations=spec['iterations'], batch=spec.get('batch', 2), accumulation=spec.get('accumulation', 1),
        backend=BackendKind(spec.get('backend', 'ddp')), zero_stage=spec.get('zero', 2), workers=0,
        max_bad_batches=spec.get('max_bad', 3))
    return replace(config, freeze_prior=spec.get('freeze_prior', False), draws=spec.get('draws', 1))


def run(spec, world, stop) -> Outcome:
    config, folder = config_of(spec), Path(spec['folder'])
    checkpoint = Path(spec['checkpoint']) if 'checkpoint' in spec else None
    job = StageRun(config=config, run=RunFolder(folder), logs=folder / 'logs', contract=FACTS,
                   start=Start(resume=spec.get('resume', False), checkpoint=checkpoint))

    def feed(config, world, policy):
        return InventedFeed(world.rank, world.size, config.batch, bad=set(spec.get('bad', ())),
                            slow_s=spec.get('slow_s', 0.0), die_at=spec.get('die_at', -1))

    return train_stage(job, world, feed, stop)


def main(path: str) -> int:
    """Several runs in a row share the time that processes take to start."""
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    specs = json.loads(Path(path).read_text())
    group = any(config_of(spec).backend is BackendKind.DEEPSPEED for spec in specs)
    with stop_requests() as stop, join_world(group=group) as world:
        for spec in specs:
            if run(spec, world, stop) is Outcome.STOPPED:
                return STOPPED
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1]))
