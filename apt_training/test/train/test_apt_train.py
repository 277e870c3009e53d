"""The command line on real episodes, end to end in this process."""

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from apt_policy.cli import parse
from apt_policy.core.contract import contract_from_dict, contract_to_dict, load_contract
from apt_policy.inference.planner import load_planner
from apt_policy.inference.planner_config import PlannerConfig
from apt_policy.model.checkpoint import read_checkpoint
from apt_policy.model.config import TrainingStage
from apt_training.data.dataset import EpisodeDataset
from apt_training.data.dataset_spec import DatasetSpec
from apt_training.data.loader import DataLoadingError, MixtureLoader
from apt_training.data.mixture import Mixture, MixtureComponent
from apt_training.data.sample import Window
from apt_training.train.arguments import TrainFlags
from apt_training.train.episode_batches import EpisodeBatches
from apt_training.train.flags import resolve
from apt_training.train.main import main
from apt_training.train.metrics import read_metrics

PACKAGE = Path(__file__).resolve().parents[2]
SHIPPED = PACKAGE.parent / 'apt_bringup' / 'config'
SIDE = 64


@pytest.fixture(scope='module')
def world(tmp_path_factory, aloha, write_episode):
    """A folder with three episodes and the contract of the robot that they were recorded on."""
    folder = tmp_path_factory.mktemp('world')
    fields = contract_to_dict(aloha)
    cameras = ('cam_high', 'cam_left_wrist', 'cam_right_wrist')
    fields |= {'image_size': SIDE, 'horizon': 4, 'cameras': {name: fields['cameras'][name] for name in cameras}}
    (folder / 'robot.yaml').write_text(yaml.safe_dump(fields, sort_keys=False))
    (folder / 'episodes').mkdir()
    for index in range(3):
        write_episode(folder / 'episodes' / f'{index}.h5', seed=index, height=SIDE, width=SIDE,
                      changes={'cameras': cameras, 'arms': tuple(aloha.arms), 'prompts': (f'lift cube {index}',)})
    return folder


@pytest.fixture
def train(world, tmp_path):
    """Run the program; flags given here come last and win."""
    def run(words, *, ckpt=None, data=('episodes',)):
        return main(['--config', 'debug', '--gpus', '0', '--workers', '0', '--bs', '2', '--log-every', '1',
                     '--data', *[str(world / name) for name in data], '--contract', str(world / 'robot.yaml'),
                     '--ckpt_dir', str(ckpt or tmp_path / 'runs'), *words.split()])
    return run


def weights(folder, iteration):
    return load_file(folder / f'iter_{iteration:06d}' / 'expert.safetensors')


def test_both_stages_in_one_command_give_a_checkpoint_that_plans(train, tmp_path, world, caplog):
    caplog.set_level('INFO')
    assert train('--stage both --max-iter 2 --va-name prior --vla-name robot') == 0
    assert 'weights copied from the prior' in caplog.text
    runs = tmp_path / 'runs'
    assert read_checkpoint(runs / 'prior' / 'iter_000002').expert.stage is TrainingStage.VA_PRIOR
    checkpoint = read_checkpoint(runs / 'robot' / 'iter_000002')
    contract = contract_from_dict(yaml.safe_load((world / 'robot.yaml').read_text()), source='test')
    checkpoint.require_contract(contract.policy_facts())
    planner = load_planner(PlannerConfig(checkpoint=str(runs / 'robot' / 'iter_000002'), device='cpu'), contract)
    planner.warm_up()
    assert len(read_metrics(runs / 'logs' / 'robot')) == 2
    assert list((runs / 'logs' / 'robot').glob('events.out.tfevents.*'))
    gates = read_metrics(runs / 'logs' / 'robot')[0]['gates']
    assert set(gates) == {'block_00', 'block_01', 'block_02'} and all(0.4 < gate < 0.6 for gate in gates.values())


def test_the_same_command_resumes_where_it_stopped(train, tmp_path, caplog):
    again = '--stage both --va-name a --vla-name b --va-conti --vla-conti --workers 1 --max-iter'
    assert train(f'{again} 4', ckpt=tmp_path / 'whole') == 0
    assert train(f'{again} 2 --stage 0', ckpt=tmp_path / 'parts') == 0
    assert train(f'{again} 4', ckpt=tmp_path / 'parts') == 0
    for name in ('a', 'b'):
        whole, parts = (weights(tmp_path / folder / name, 4) for folder in ('whole', 'parts'))
        assert all(torch.equal(whole[key], parts[key]) for key in whole), name
    caplog.set_level('INFO')
    assert train(f'{again} 4', ckpt=tmp_path / 'parts') == 0
    assert caplog.text.count('nothing left to do') == 2


def test_gpus_2_starts_two_processes_on_a_machine_without_a_gpu(train, tmp_path, monkeypatch):
    monkeypatch.chdir(PACKAGE)
    assert train('--stage 0 --gpus 2 --max-iter 2 --va-name two') == 0
    facts = json.loads((tmp_path / 'runs' / 'two' / 'state_000002' / 'training.json').read_text())
    assert (facts['processes'], facts['feed']['next_draw']) == (2, 8)


def test_a_vla_without_its_prior_says_how_to_get_one(train, caplog):
    assert train('--stage 1 --max-iter 1') == 1
    assert re.search('there is no prior at .*debug_va; train one with --stage 0 or both', caplog.text)
    assert train('--stage 1 --max-iter 1 --no-load-from-va') == 0, 'training in one stage is a choice'


def test_a_filled_cache_holds_every_frame_once_and_is_only_read(train, tmp_path):
    words = '--stage 0 --no-augment --max-iter 3 --va-name'
    cache = tmp_path / 'features'
    assert train(f'{words} cached --feature-cache {cache} --fill-feature-cache') == 0
    entries = sorted(cache.rglob('*.safetensors'))
    assert len(entries) == 36, 'one for every frame'
    stamps = [path.stat().st_mtime_ns for path in entries]
    assert train(f'{words} again --feature-cache {cache} --draws 2') == 0
    assert [path.stat().st_mtime_ns for path in sorted(cache.rglob('*.safetensors'))] == stamps, 'nothing is missing'
    assert train(f'{words} again --feature-cache {tmp_path / "other"} --max-iter 3') == 1, 'the name is taken'


@pytest.mark.parametrize('words', ['--stage 0 --va-name', '--stage 1 --no-load-from-va --vla-name'])
def test_cached_features_give_the_losses_of_the_vlm(train, tmp_path, words):
    words = f'--no-augment --max-iter 3 {words}'
    assert train(f'{words} plain') == 0
    assert train(f'{words} cached --feature-cache {tmp_path / "features"}') == 0
    plain, cached = ([record['losses']['total'] for record in read_metrics(tmp_path / 'runs' / 'logs' / name)]
                     for name in ('plain', 'cached'))
    assert len(cached) == 3 and cached == pytest.approx(plain, rel=1e-3)
    assert list((tmp_path / 'features').rglob('*.safetensors'))


def test_preflight_accounts_for_a_checkpoint_and_the_launch(train, tmp_path, capfd):
    assert train('--stage 0 --max-iter 1 --va-name prior') == 0
    prior = tmp_path / 'runs' / 'prior' / 'iter_000001'
    capfd.readouterr()
    assert train(f'--stage 1 --load-from-va --preflight {prior}') == 0
    said = capfd.readouterr().err
    assert 'holds a va_prior' in said and 'new: blocks 0, 2' in said and 'the same as the contract of this run' in said
    assert '3 episodes, 36 frames' in said and 'one pass: loss' in said and 'ready to launch' in said
    assert not (tmp_path / 'runs' / 'debug_vla').exists()


def test_preflight_reads_a_published_file(train, tmp_path, capfd):
    assert train('--stage 0 --max-iter 1 --va-name prior') == 0
    torch.save({'weights': weights(tmp_path / 'runs' / 'prior', 1)}, tmp_path / 'ckpt_latest.pt')
    assert train(f'--stage 0 --preflight {tmp_path / "ckpt_latest.pt"}') == 0
    assert 'not recorded in a published file' in capfd.readouterr().err


@pytest.mark.parametrize(('words', 'message'), [
    ('--stage 1 --no-load-from-va --preflight {prior}', 'holds a va_prior, expected a vla'),
    ('--stage 0 --config small --vlm tiny --preflight {prior}', 'recipe small has 384 with 6'),
    ('--stage 0 --preflight {prior}/nothing', 'there is no checkpoint at'),
    ('--stage 0 --preflight --data nowhere', "'nowhere' is neither a folder nor a dataset")])
def test_preflight_names_what_would_end_the_launch(train, tmp_path, capfd, words, message):
    assert train('--stage 0 --max-iter 1 --va-name prior') == 0
    assert train(words.format(prior=tmp_path / 'runs' / 'prior' / 'iter_000001')) == 1
    said = capfd.readouterr().err
    assert message in said.replace('\n', ' ') and 'this launch would fail' in said


def test_arguments_that_cannot_be_used_have_their_own_status(train, caplog):
    assert train('--stage 0 --vlm-mode lora') == 2
    assert 'give it with --stage 1 or both' in caplog.text
    assert train('--gpus -1') == 2


def test_the_default_contract_is_found_from_any_folder(monkeypatch):
    monkeypatch.chdir('/')
    flags = parse(TrainFlags, ['--data', 'out/episodes'], program='apt-train')
    assert load_contract(resolve(flags).contract).name == 'aloha'


def test_a_contract_of_another_robot_is_named_with_what_it_has_and_what_the_episodes_have(train, world, caplog):
    assert train(f'--stage 0 --max-iter 1 --contract {SHIPPED}/aloha.yaml') == 1
    assert '3 of 3 episodes do not fit the contract of robot aloha' in caplog.text
    assert f'--contract is {SHIPPED}/aloha.yaml' in caplog.text and 'cam_low' in caplog.text
    assert 'Give the contract that they were converted with' in caplog.text and 'Repair' not in caplog.text


@pytest.mark.parametrize(('words', 'message'), [
    ('--data nowhere', "'nowhere' is neither a folder nor a dataset"),
    ('--data {world}', 'episodes cannot be used')])
def test_wrong_data_is_named_before_the_vlm_is_loaded(train, tmp_path, caplog, words, message):
    (tmp_path / 'broken.h5').write_text('not an episode')
    assert train(f'--stage 0 --vlm {tmp_path}/no_vlm {words.format(world=tmp_path)}') == 1
    assert message in caplog.text and 'no_vlm' not in caplog.text
    assert train(f'--stage 0 --vlm {tmp_path}/no_vlm') == 1
    assert 'no_vlm' in caplog.text, 'with good data it is the VLM that is missed'


def test_episodes_with_the_other_suffix_are_trained_on(train, world, tmp_path):
    shutil.copy(world / 'episodes' / '0.h5', tmp_path / '0.hdf5')
    assert train(f'--stage 0 --max-iter 1 --data {tmp_path}') == 0


def test_going_on_with_other_data_is_refused(train, world, tmp_path, caplog):
    assert train('--stage 0 --max-iter 1') == 0
    assert train('--stage 0 --max-iter 2 --va-conti', data=('episodes/0.h5',)) == 1
    assert 'cannot resume with the draws of another mixture' in caplog.text


class Broken(EpisodeDataset):
    """Kills the process that reads it, or never answers."""

    hang = False

    def draw_sample(self, episode, rng):
        if self.hang:
            time.sleep(1000)
        os.kill(os.getpid(), 9)


@pytest.mark.parametrize(('hang', 'message'), [(False, r'exited unexpectedly|killed by signal'), (True, 'timed out')])
def test_dead_and_hung_loaders_name_the_data(world, hang, message):
    dataset = Broken(sorted((world / 'episodes').iterdir()), DatasetSpec(name='kitchen'),
                     window=Window(image_size=SIDE))
    dataset.hang = hang
    mixture = Mixture([MixtureComponent(dataset=dataset, weight=1.0)], seed=0)
    loader = MixtureLoader(mixture, 2, workers=1, timeout_s=3.0)
    batches = EpisodeBatches(loader, torch.device('cpu'))
    with pytest.raises(DataLoadingError, match=message) as caught:
        batches.next_batch()
    assert 'kitchen' in str(caught.value)
    batches.close()


def test_the_program_shows_its_flags(capsys):
    with pytest.raises(SystemExit):
        main(['--help'])
    said = capsys.readouterr().out
    assert all(flag in said for flag in ('--backend', '--dataloader-timeout', '--bs', '--preflight', 'exit status'))
