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
from apt_policy.model.config import TrainingStage
from apt_training.train.arguments import TrainFlags
from apt_training.train.config import BackendKind, ConfigError, TrainConfig
from apt_training.train.distributed import DistributedContext, init_distributed
from apt_training.train.episode_batches import episode_batches_factory, open_training_data
from apt_training.train.flags import TrainArguments, resolve
from apt_training.train.initialize import InitFrom
from apt_training.train.launch import is_launched, own_command, run_processes
from apt_training.train.preflight import preflight
from apt_training.train.run_folder import RunFolder
from apt_training.train.stage_run import StageRun, is_finished, train_stage
from apt_training.train.trainer import TrainingResult

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
    if request.gpus > 1 and not is_launched():
        return run_processes(own_command(argv), request.gpus, stop)
    with ExitStack() as stack:
        group = any(config.backend is BackendKind.DEEPSPEED for config in request.stages)
        distributed = stack.enter_context(init_distributed(use_gpu=request.gpus != 0, always_create_group=group))
        for config in request.stages:
            if _train(request, config, distributed, stop) is TrainingResult.STOPPED:
                if distributed.is_main_process:
                    log.warning('stopped by a signal and saved; the same command with --va-conti --vla-conti goes on')
                return STOPPED
    return 0


def _train(request: TrainArguments, config: TrainConfig, distributed: DistributedContext,
           stop: threading.Event) -> TrainingResult:
    contract = load_contract(request.contract)
    run = RunFolder(request.ckpt_dir / request.names[config.stage])
    if request.resume[config.stage] and is_finished(run, config):
        if distributed.is_main_process:
            log.info('%s is at iteration %d of %d: nothing left to do', run.folder, run.latest_iteration(),
                     config.iterations)
        return TrainingResult.DONE
    job = StageRun(config=config, run=run, logs=request.log_dir / run.folder.name,
                   init_from=init_source(request, config), contract=contract.policy_facts())
    # Before the VLM is loaded, which may take minutes: what can be wrong with the data is seen in seconds.
    mixture = open_training_data(request, config, contract)
    outcome = train_stage(job, distributed, episode_batches_factory(request, contract, mixture), stop)
    if distributed.is_main_process:
        log.info('%s %s at iteration %d', run.folder, outcome.value, run.latest_iteration() or 0)
    return outcome


def init_source(request: TrainArguments, config: TrainConfig) -> InitFrom:
    """Return the source of a stage's weights: the named checkpoint, else the prior of a VLA, else none.

    Raises:
        ConfigError: there is no prior.
    """
    resume = request.resume[config.stage]
    both = len(request.stages) > 1
    if request.pretrained is not None and (config.stage is TrainingStage.VA_PRIOR or not both):
        return InitFrom(checkpoint=request.pretrained, resume=resume)
    if config.stage is TrainingStage.VA_PRIOR or request.load_from_va is False:
        return InitFrom(resume=resume)
    prior = RunFolder(request.ckpt_dir / request.names[TrainingStage.VA_PRIOR])
    latest = prior.latest_iteration()
    if latest is None:
        raise ConfigError(f'there is no prior at {prior.folder}; train one with --stage 0 or both, name its run with '
                          '--va-name, or train in one stage with --no-load-from-va')
    return InitFrom(checkpoint=prior.checkpoint_folder(latest), resume=resume)


def _require_devices(request: TrainArguments) -> None:
    there = torch.cuda.device_count()
    if request.gpus < 0:
        raise ConfigError(f'--gpus is {request.gpus}; expected 0 or more')
    if torch.cuda.is_available() and request.gpus > there and not is_launched():
        raise ConfigError(f'--gpus is {request.gpus}, this machine has {there}')


def _set_up_logging() -> None:
    rank = os.environ.get('RANK')
    tag = '' if rank in (None, '0') else f'[process {rank}] '
    logging.basicConfig(format=f'apt-train: {tag}%(message)s', stream=sys.stderr)
    logging.getLogger('apt_training').setLevel(logging.INFO)
    for noisy in ('httpx', 'transformers', 'DeepSpeed', 'matplotlib'):
        logging.getLogger(noisy).setLevel(logging.ERROR)
