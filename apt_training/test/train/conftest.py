"""Runs on synthetic samples, in this process and in several."""

import importlib.util
import json
import os
import sys
import threading
from pathlib import Path

import pytest
import torch

from apt_training.train.distributed import DistributedContext
from apt_training.train.launch import run_processes

FOLDER = Path(__file__).resolve().parent
PROGRAM = FOLDER / 'synthetic_run.py'


@pytest.fixture(scope='session', autouse=True)
def one_thread():
    """The models are tiny: on a shared machine, threads that wait for each other cost 20 times the work."""
    torch.set_num_threads(1)


@pytest.fixture(scope='session')
def synthetic():
    """Module of synthetic samples, which is also a program."""
    spec = importlib.util.spec_from_file_location('synthetic_run', PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='session')
def alone() -> DistributedContext:
    """Context of a run of one process."""
    return DistributedContext(rank=0, world_size=1, local_rank=0, device=torch.device('cpu'))


@pytest.fixture(scope='session')
def train_here(synthetic, alone):
    """Train one spec in this process."""
    def train(**spec):
        return synthetic.run({**spec, 'folder': str(spec['folder'])}, alone, threading.Event())
    return train


@pytest.fixture(scope='session')
def train_in_processes(tmp_path_factory):
    """Train specs one after the other in a group of processes; returns the exit status."""
    def train(*specs, processes=2, stop=None):
        path = tmp_path_factory.mktemp('specs') / 'specs.json'
        path.write_text(json.dumps([{**spec, 'folder': str(spec['folder'])} for spec in specs]))
        # Sources before installed packages, as in this process.
        paths = [str(FOLDER.parents[1]), *filter(None, [os.environ.get('PYTHONPATH')])]
        return run_processes([sys.executable, str(PROGRAM), str(path)], processes, stop or threading.Event(),
                             environment={'OMP_NUM_THREADS': '1', 'PYTHONPATH': os.pathsep.join(paths)})
    return train
