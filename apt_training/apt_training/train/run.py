"""Training as the command line asks for it: starts processes, runs the stages, reports errors by exit status."""

import logging
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack

import torch

from apt_policy.console import error_text
from apt_policy.core.contract import load_contract
from apt_policy.core.errors import UserError
from apt_policy.core.stop import stop_requests
from apt_policy.model.config import Stage
from apt_training.train.arguments import TrainFlags
from apt_training.train.config import BackendKind, ConfigError, TrainConfig
from apt_training.train.flags import TrainArguments, resolve
from apt_training.train.launch import launched, own_command, run_processes
from apt_training.train.preflight import preflight
from apt_training.train.saving import RunFolder
from apt_training.train.sources import feed_of_episodes, open_data
from apt_training.train.stage_run import StageRun, finished, train_stage
from apt_training.train.start import Start
from apt_training.train.trainer import Outcome
from apt_training.train.world import World, join_world

log = logging.getLogger('apt_training.train')

STOPPED = 75
"""Exit status of a run that can be gone on with (EX_TEMPFAIL of sysexits.h)."""


def train(flags: TrainFlags, argv: Sequence[str]) -> int:
    """Train as the command line asks for.

    Args:
        flags: what was typed.
        argv: its words, which start the processes of other ranks.

    Returns:
        0 done, 75 stopped by a signal and saved, 2 for arguments that cannot be used, else 1.
    """
    _set_up_logging()
    try:
        request = resolve(flags)
        _require_devices(request)
    except ValueError as error:
        log.error('%s', error)
        return 2
    with stop_requests() as stop:
        try:
            return _run(request, argv, stop)
        except (UserError, ValueError, RuntimeError, OSError, FloatingPointError) as error:
            log.error('%s', error_text(error), exc_info=log.isEnabledFor(logging.DEBUG))
            return 1


def _run(request: TrainArguments, argv: Sequence[str], stop: threading.Event) -> int:
    if request.preflight is not None:
        return preflight(request)
    if request.gpus > 1 and not launched():
        return run_processes(own_command(argv), request.gpus, stop)
    if request.gpus == 0:
        os.environ['APT_TRAIN_DEVICE'] = 'cpu'
    with ExitStack() as stack:
        group = any(config.backend is BackendKind.DEEPSPEED for config in request.stages)
        world = stack.enter_context(join_world(group=group))
        for config in request.stages:
            if _train(request, config, world, stop) is Outcome.STOPPED:
                if world.leads:
                    log.warning('stopped by a signal and saved; the same command with --va-conti --vla-conti goes on')
                return STOPPED
    return 0


def _train(request: TrainArguments, config: TrainConfig, world: World, stop: threading.Event) -> Outcome:
    contract = load_contract(request.contract)
    run = RunFolder(request.ckpt_dir / request.names[config.stage])
    if request.resume[config.stage] and finished(run, config):
        if world.leads:
            log.info('%s is at iteration %d of %d: nothing left to do', run.folder, run.latest(), config.iterations)
        return Outcome.DONE
    job = StageRun(config=config, run=run, logs=request.log_dir / run.folder.name,
                   start=start_of(request, config), contract=contract.policy_facts())
    # Before the VLM is loaded, which may take minutes: what can be wrong with the data is seen in seconds.
    mixture = open_data(request, config, contract)
    outcome = train_stage(job, world, feed_of_episodes(request, contract, mixture), stop)
    if world.leads:
        log.info('%s %s at iteration %d', run.folder, outcome.value, run.latest() or 0)
    return outcome


def start_of(request: TrainArguments, config: TrainConfig) -> Start:
    """What a stage begins with: what is named, else the prior for a VLA, else nothing.

    Raises:
        ConfigError: there is no prior.
    """
    resume = request.resume[config.stage]
    both = len(request.stages) > 1
    if request.pretrained is not None and (config.stage is Stage.VA_PRIOR or not both):
        return Start(checkpoint=request.pretrained, resume=resume)
    if config.stage is Stage.VA_PRIOR or request.load_from_va is False:
        return Start(resume=resume)
    prior = RunFolder(request.ckpt_dir / request.names[Stage.VA_PRIOR])
    latest = prior.latest()
    if latest is None:
        raise ConfigError(f'there is no prior at {prior.folder}; train one with --stage 0 or both, name its run with '
                          '--va-name, or train in one stage with --no-load-from-va')
    return Start(checkpoint=prior.checkpoint(latest), resume=resume)


def _require_devices(request: TrainArguments) -> None:
    there = torch.cuda.device_count()
    if request.gpus < 0:
        raise ConfigError(f'--gpus is {request.gpus}; expected 0 or more')
    if torch.cuda.is_available() and request.gpus > there and not launched():
        raise ConfigError(f'--gpus is {request.gpus}, this machine has {there}')


def _set_up_logging() -> None:
    rank = os.environ.get('RANK')
    tag = '' if rank in (None, '0') else f'[process {rank}] '
    logging.basicConfig(format=f'apt-train: {tag}%(message)s', stream=sys.stderr)
    logging.getLogger('apt_training').setLevel(logging.INFO)
    for noisy in ('httpx', 'transformers', 'DeepSpeed', 'matplotlib'):
        logging.getLogger(noisy).setLevel(logging.ERROR)
