"""Exported checkpoints need nothing else, and give the same plans."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from apt_policy.model.batch import Images, RobotState
from apt_policy.model.checkpoint import BESIDE, CheckpointError, read_checkpoint
from apt_policy.model.config import ExpertSize, TrainingStage, VlmConfig, VlmMode
from apt_policy.model.policy import predict_states
from apt_policy.model.restore import build_policy, save_policy
from apt_policy.model.vlm.load import VlmError
from apt_policy.model.vlm.tiny import tiny_config, tiny_model, tiny_tokenizer
from apt_training.export.checkpoint import export_checkpoint
from apt_training.export.main import main
from apt_training.train.config import TrainConfig
from apt_training.train.initialize import build_new_policy
from apt_training.train.provenance import RECIPE_FILE, write_recipe
from apt_training.train.run_folder import RunFolder

FACTS = {'arms': ['left', 'right'], 'cameras': ['one', 'two'], 'image_size': 64, 'horizon': 4, 'history': 1,
         'step_s': 0.1}
CPU = torch.device('cpu')


@pytest.fixture(scope='session', autouse=True)
def one_thread():
    """Use one thread: for tiny models, threads that wait for each other cost 20 times the work."""
    torch.set_num_threads(1)


@pytest.fixture(scope='module')
def learned_vlm(tmp_path_factory):
    """Save a VLM to a folder as fine-tuning does, with other files beside it."""
    folder, tokenizer = tmp_path_factory.mktemp('vlm'), tiny_tokenizer()
    tiny_model(tiny_config(tokenizer), seed=7).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / 'training').mkdir()
    (folder / 'training' / 'optimizer.pt').write_bytes(b'large')
    return folder


@pytest.fixture
def vlm(learned_vlm, tmp_path):
    return shutil.copytree(learned_vlm, tmp_path / 'models' / 'table_vlm')


def make_config(vlm, mode=VlmMode.FROZEN):
    return TrainConfig(recipe='test', stage=TrainingStage.VLA, expert=ExpertSize.TINY, iterations=5, batch_size=3,
                       vlm=VlmConfig(name=str(vlm), dtype='float32', mode=mode))


def save_run(folder, vlm, *, averaged, mode=VlmMode.FROZEN):
    """Write the folder of a training run at iteration 5."""
    config, run = make_config(vlm, mode), RunFolder(folder)
    for target, seed in [(run.checkpoint_folder(5), 1)] + [(run.ema_folder(5), 2)] * averaged:
        torch.manual_seed(seed)
        policy = build_new_policy(config, CPU)
        with torch.no_grad():
            for name, value in policy.named_parameters():
                if 'lora_B' in name or name.startswith('expert.'):
                    value += 0.02 * torch.randn_like(value)
        save_policy(target, policy, contract=FACTS, iteration=5, git_revision='abc')
    run.set_latest(5)
    write_recipe(folder, config)
    return folder


def prediction(checkpoint):
    """Return the plan (1, T, A, 17) of a policy for fixed inputs and noise."""
    policy = build_policy(read_checkpoint(checkpoint), device=CPU).eval()
    random = torch.Generator().manual_seed(0)
    eye = torch.eye(4).expand(1, 2, 4, 4).clone()
    eye[..., :3, 3] = torch.rand(1, 2, 3, generator=random)
    history = torch.cat([eye.flatten(2), torch.rand(1, 2, 1, generator=random)], -1)[:, None]
    images = Images(rgb=torch.rand(1, 2, 3, 64, 64, generator=random),
                    mask=torch.ones(1, 2, 64, 64, dtype=torch.bool),
                    norm_xy=torch.randn(1, 2, 2, 64, 64, generator=random), prompts=('lift the cube',))
    robot = RobotState(world_from_camera=eye, world_from_ee=eye, world_from_reference=eye, history=history,
                       valid_arms=torch.ones(1, 2, dtype=torch.bool))
    with torch.inference_mode():
        features = policy.vlm(images)
    return predict_states(policy.sampler(3), features, robot, torch.randn(1, 2, 4, 10, generator=random))


@pytest.mark.parametrize('mode', [VlmMode.FROZEN, VlmMode.LORA])
def test_a_packed_folder_says_the_same_anywhere_without_what_it_was_made_of(vlm, tmp_path, mode):
    run = save_run(tmp_path / 'runs' / 'robot', vlm, averaged=False, mode=mode)
    expected = prediction(run)
    export_checkpoint(run, tmp_path / 'packed')
    shutil.rmtree(vlm)
    shutil.rmtree(run)
    moved = (tmp_path / 'packed').rename(tmp_path / 'elsewhere')
    assert torch.equal(prediction(moved), expected) and torch.isfinite(expected).all()
    assert json.loads((moved / 'checkpoint.json').read_text())['model']['vlm']['name'] == f'{BESIDE}vlm'
    assert str(tmp_path) not in ''.join(file.read_text() for file in moved.rglob('*.json'))


def test_the_averaged_weights_are_taken_where_there_are_any(vlm, tmp_path):
    run = save_run(tmp_path / 'robot', vlm, averaged=True)
    assert not torch.equal(prediction(run), prediction(RunFolder(run).ema_folder(5)))
    export_checkpoint(run, tmp_path / 'packed')
    assert torch.equal(prediction(tmp_path / 'packed'), prediction(RunFolder(run).ema_folder(5)))
    export_checkpoint(RunFolder(run).checkpoint_folder(5), tmp_path / 'plain')
    assert torch.equal(prediction(tmp_path / 'plain'), prediction(run)), 'a checkpoint that is named is the one'


def test_what_checkpoint_it_was_stays_written_down(vlm, tmp_path):
    run = save_run(tmp_path / 'robot', vlm, averaged=True)
    for source, target in ((run, 'of_run'), (RunFolder(run).checkpoint_folder(5), 'of_checkpoint')):
        export_checkpoint(source, tmp_path / target)
        packed = read_checkpoint(tmp_path / target)
        assert (packed.iteration, packed.git_revision, packed.contract) == (5, 'abc', FACTS)
        recipe = json.loads((tmp_path / target / RECIPE_FILE).read_text())
        written = json.loads((run / RECIPE_FILE).read_text())
        assert recipe == {**written, 'vlm': {**written['vlm'], 'name': f'{BESIDE}vlm'}}
        assert (recipe['batch'], recipe['stage']) == (3, TrainingStage.VLA.value)


def test_only_what_loads_the_vlm_is_copied(vlm, tmp_path):
    export_checkpoint(save_run(tmp_path / 'robot', vlm, averaged=False), tmp_path / 'packed')
    copied = {path.name for path in (tmp_path / 'packed' / 'vlm').iterdir()}
    assert {'config.json', 'model.safetensors', 'tokenizer.json'} <= copied and 'training' not in copied
    assert not (tmp_path / 'packed' / 'vlm.safetensors').exists(), 'frozen weights lie there once'
    before, after = (load_file(folder / 'model.safetensors') for folder in (vlm, tmp_path / 'packed' / 'vlm'))
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_packed_folder_can_be_packed_again(vlm, tmp_path):
    export_checkpoint(save_run(tmp_path / 'robot', vlm, averaged=False), tmp_path / 'one')
    export_checkpoint(tmp_path / 'one', tmp_path / 'two')
    expected = prediction(tmp_path / 'one')
    shutil.rmtree(tmp_path / 'one')
    assert torch.equal(prediction(tmp_path / 'two'), expected) and (tmp_path / 'two' / RECIPE_FILE).exists()


def test_a_vlm_built_in_code_needs_no_folder(tmp_path):
    run = save_run(tmp_path / 'robot', 'tiny', averaged=False)
    export_checkpoint(run, tmp_path / 'packed')
    assert not (tmp_path / 'packed' / 'vlm').exists() and read_checkpoint(tmp_path / 'packed').vlm.name == 'tiny'
    assert torch.equal(prediction(tmp_path / 'packed'), prediction(run))


def test_a_folder_that_holds_something_is_refused(vlm, tmp_path, capsys):
    run, target = save_run(tmp_path / 'robot', vlm, averaged=False), tmp_path / 'packed'
    target.mkdir()
    assert main([str(run), '--out', str(target)]) == 0, 'an empty one will do'
    before = {path: path.stat().st_mtime_ns for path in target.rglob('*')}
    assert main([str(run), '--out', str(target)]) == 2
    assert f'{target} is not empty; choose another folder, or remove it first' in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in target.rglob('*')} == before


def test_a_corrupt_checkpoint_leaves_nothing_behind(vlm, tmp_path, capsys):
    run = save_run(tmp_path / 'robot', vlm, averaged=False)
    weights = RunFolder(run).checkpoint_folder(5) / 'expert.safetensors'
    weights.write_bytes(weights.read_bytes()[:1000])
    assert main([str(run), '--out', str(tmp_path / 'new' / 'packed')]) == 2
    assert 'iter_000005 is corrupt' in capsys.readouterr().err and not (tmp_path / 'new').exists()


def test_a_damaged_run_or_none_is_named(vlm, tmp_path, capsys):
    run = save_run(tmp_path / 'robot', vlm, averaged=False)
    (run / 'latest').write_text('iter_000007\n')
    assert main([str(run), '--out', str(tmp_path / 'packed')]) == 2
    assert main([str(tmp_path / 'nowhere'), '--out', str(tmp_path / 'packed')]) == 2
    said = capsys.readouterr().err
    assert 'there is no such checkpoint' in said and 'there is no checkpoint at' in said
    assert not (tmp_path / 'packed').exists()


def test_a_vlm_that_is_gone_is_named_before_anything_is_written(vlm, tmp_path, capsys):
    run = save_run(tmp_path / 'robot', vlm, averaged=False)
    shutil.rmtree(vlm)
    assert main([str(run), '--out', str(tmp_path / 'packed')]) == 2
    assert f'cannot load the vision-language model {str(vlm)!r}' in capsys.readouterr().err
    assert not (tmp_path / 'packed').exists()


def test_a_packed_folder_that_lost_its_vlm_says_where_it_should_be(vlm, tmp_path):
    export_checkpoint(save_run(tmp_path / 'robot', vlm, averaged=False), tmp_path / 'packed')
    shutil.rmtree(tmp_path / 'packed' / 'vlm')
    with pytest.raises(VlmError, match=str(tmp_path / 'packed' / 'vlm')):
        prediction(tmp_path / 'packed')


def test_a_vlm_that_was_named_from_the_working_folder_is_found_there(vlm, tmp_path, monkeypatch):
    """Check ``--vlm ./models/table_vlm``, which begins like the name of an exported VLM."""
    monkeypatch.chdir(tmp_path)
    run = save_run(tmp_path / 'robot', './models/table_vlm', averaged=False)
    expected = prediction(run)
    export_checkpoint(run, tmp_path / 'packed')
    shutil.rmtree(vlm)
    assert torch.equal(prediction(tmp_path / 'packed'), expected)


def test_weights_of_another_robot_are_still_refused(vlm, tmp_path):
    export_checkpoint(save_run(tmp_path / 'robot', vlm, averaged=False), tmp_path / 'packed')
    with pytest.raises(CheckpointError, match='trained for another robot'):
        read_checkpoint(tmp_path / 'packed').require_contract({**FACTS, 'horizon': 5})


def test_half_precision_halves_the_folder_and_hardly_moves_the_plan(vlm, tmp_path):
    run = save_run(tmp_path / 'run', vlm, averaged=False)
    whole, half = export_checkpoint(run, tmp_path / 'whole'), export_checkpoint(run, tmp_path / 'half', half=True)
    assert half < 0.6 * whole
    assert torch.allclose(prediction(tmp_path / 'half'), prediction(tmp_path / 'whole'), atol=0.05)
