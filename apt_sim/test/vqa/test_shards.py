"""VQA shards: reproducible, atomic, and readable by the fine-tuning data loader."""

import hashlib
import json
import resource
from contextlib import contextmanager

import cv2
import pytest

from apt_sim.evaluation.rollout import RolloutPlan
from apt_sim.evaluation.splits import InstructionSplit, parse_skills
from apt_sim.vqa.main import main
from apt_sim.vqa.shard_writer import CONVERSATIONS, ShardWriter, VqaConfig, shard_folder
from apt_training.vlm_finetune.conversations import ConversationDataset


class NotedError(Exception):
    pass


@contextmanager
def files_of_at_most(size):
    """Limit the file size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def digests(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def words(folder, small_file, *more):
    return ['--contract', str(small_file), '--out', str(folder), '--shards', '2', *more]


@pytest.fixture(scope='module')
def written(small_file, tmp_path_factory):
    """Write two shards in two processes."""
    folder = tmp_path_factory.mktemp('questions')
    assert main(words(folder, small_file, '--workers', '2')) == 0
    return folder


@pytest.fixture
def writer(small_file, tmp_path):
    """Return the configuration of shards with two scenes."""
    writer = ShardWriter(VqaConfig(contract=str(small_file), scenes=2), tmp_path)
    yield writer
    writer.close()


def test_the_bytes_of_a_shard_depend_on_its_number_alone(written, small_file, tmp_path):
    writer = ShardWriter(VqaConfig(contract=str(small_file)), tmp_path)
    assert writer(1) == 50
    writer.close()
    assert digests(shard_folder(tmp_path, 1)) == digests(shard_folder(written, 1))
    assert digests(shard_folder(written, 0)) != digests(shard_folder(written, 1))
    assert not list(written.glob('.sheet*'))


def test_a_line_has_images_marks_and_a_conversation(written):
    lines = (shard_folder(written, 0) / CONVERSATIONS).read_text().splitlines()
    assert len(lines) == 50
    for line in map(json.loads, lines):
        assert len(line['images']) == len(line['marks']) == len(line['places']) == 3
        assert [set(places) for places in line['places']] == [set(marks) for marks in line['marks']]
        marked = {name for marks in line['marks'] for name in marks}
        assert len(line['meant']) == 7 and any(line['meant']) and set(line['meant']) - {None} <= marked
        for name in line['images']:
            assert cv2.imread(str(shard_folder(written, 0) / name)).shape == (128, 128, 3)
        points = [point for marks in line['marks'] for things in marks.values() for point in things]
        assert points and all(0 <= share <= 1 for point in points for share in point)
        assert [message['role'] for message in line['messages']] == ['user', 'assistant'] * 7
        kinds = [part['type'] for message in line['messages'] for part in message['content']]
        assert kinds == ['image'] * 3 + ['text'] * 14


def test_the_fine_tuning_loader_reads_shards(written):
    conversations = ConversationDataset([written])
    assert len(conversations) == 100 and conversations[99].load_images().shape == (3, 128, 128, 3)
    assert {'red', 'cube', 'white', 'tray'} <= set(conversations.words)
    assert conversations.has_targets


def test_existing_shards_are_not_written_again(written, small_file, capsys):
    before = digests(shard_folder(written, 0))
    assert main(words(written, small_file)) == 0
    assert '2 shards of 50 scenes' in (said := ' '.join(capsys.readouterr().err.split())) and '0 of them new' in said
    assert digests(shard_folder(written, 0)) == before


def test_a_folder_refuses_other_settings(written, small_file, capsys):
    assert main(words(written, small_file, '--seed', '1')) == 2
    said = ' '.join(capsys.readouterr().err.split())
    assert 'made with seed = 0, these settings have 1; choose another folder' in said


@pytest.mark.parametrize(('more', 'message'), [
    (('--shards', '0'), '--shards is 0; expected 1 or more'),
    (('--seed', 'one'), "--seed is 'one'; expected a whole number")])
def test_a_number_that_is_none_is_named(small_file, tmp_path, capsys, more, message):
    assert main(words(tmp_path / 'new', small_file, *more)) == 2 and message in capsys.readouterr().err
    assert not (tmp_path / 'new').exists()


def test_a_contract_that_is_not_there_is_named(tmp_path, capsys):
    assert main(words(tmp_path / 'new', tmp_path / 'robot.yaml')) == 2
    assert 'robot.yaml' in capsys.readouterr().err and not (tmp_path / 'new').exists()


def test_a_shard_is_written_atomically(writer, tmp_path):
    with files_of_at_most(1000), pytest.raises(OSError, match='File too large'):
        writer(0)
    assert not list(tmp_path.iterdir())
    assert writer(0) == 2
    assert [path.name for path in tmp_path.iterdir()] == ['sheet_00000']


def test_what_was_left_half_written_is_begun_anew(writer, tmp_path):
    writer(0)
    whole = digests(shard_folder(tmp_path, 0))
    with files_of_at_most(1000), pytest.raises(OSError, match='File too large'):
        writer(1)
    writer(1)
    assert digests(shard_folder(tmp_path, 0)) == whole and len(list(tmp_path.iterdir())) == 2


def test_no_static_scene_is_the_scene_of_a_rollout(writer, tmp_path):
    class Notes:
        """Sampler that records its seeds."""

        def __init__(self):
            self.seeds = []

        def sample(self, seed):
            self.seeds.append(seed)
            raise NotedError

    notes = writer._sampler = Notes()
    for sheet in range(40):
        for row in range(50):
            with pytest.raises(NotedError):
                writer._scene(sheet, row, tmp_path)
    rollouts = {RolloutPlan(split=split, skills=parse_skills('pick,place')).scene_seed(number, attempt)
                for split in InstructionSplit for number in range(200) for attempt in range(3)}
    assert len(set(notes.seeds)) == 2000 and all(0 <= seed < 2**31 for seed in notes.seeds)
    assert not rollouts & set(notes.seeds)
