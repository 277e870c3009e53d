"""Bags of collected episodes: a converted bag equals the episode file."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import Reader

from apt_policy.core.contract import load_contract
from apt_policy.core.geometry import angle_between
from apt_policy.core.stream_spec import Need
from apt_recorder.streams import recorded_streams
from apt_sim.collect import main as sim_data
from apt_sim.collect.bags import CONTRACT
from apt_sim.collect.dataset import bag_folder, episode_file, is_complete_bag, missing_episodes, remove_partial_files
from apt_training.convert import main as convert
from apt_training.convert.rosbag.bag_reader import BagReader, bag_files
from apt_training.convert.source import ConvertError
from apt_training.episodes.read import Episode

SMALL = Path(__file__).parents[3] / 'apt_bringup' / 'config' / 'aloha_small.yaml'
DEADLINE_S = 120.0
# TF is computed from the joints, which MuJoCo integrates after placing the links: one physics step of 2 ms apart.
STEP_M, STEP_RAD = 0.001, 0.006
# Difference between two JPEG qualities of the same image [grey levels].
GREY = 4.0


def words(folder, episodes, *more):
    return ['--contract', str(SMALL), '--skills', 'pick', '--action-noise', '0.01', '--episodes', str(episodes),
            '--workers', '1', '--out', str(folder), *more]


def digests(folder, pattern):
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in folder.glob(pattern)}


@pytest.fixture(scope='module')
def bagged(tmp_path_factory):
    """Collect two episodes, the first as a bag too."""
    folder = tmp_path_factory.mktemp('bagged')
    assert sim_data.main(words(folder, 2, '--bags', '1')) == 0
    return folder


@pytest.fixture(scope='module')
def converted(bagged, tmp_path_factory):
    """Convert the bag to an episode."""
    folder, bag = tmp_path_factory.mktemp('converted'), bag_folder(bagged, 0)
    assert convert.main([str(bag), '--contract', str(bag / CONTRACT), '--out', str(folder), '--workers', '1',
                         '--no-sheet']) == 0
    (file,) = folder.glob('*.h5')
    return file


def test_an_episode_file_has_the_same_bytes_without_a_bag_and_a_bag_the_same_in_every_run(bagged, tmp_path):
    """The second bag is written later, by a process that has simulated other episodes before."""
    assert sim_data.main(words(tmp_path, 2)) == 0
    assert not (tmp_path / 'bags').exists()
    assert digests(tmp_path, '*.h5') == digests(bagged, '*.h5')
    written = {file: file.stat().st_mtime_ns for file in tmp_path.glob('*.h5')}
    assert missing_episodes(tmp_path, 2, bags=2) == [0, 1]
    assert sim_data.main(words(tmp_path, 2, '--bags', '2')) == 0
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob('*.h5')} == written, 'what is there stays'
    again, first = digests(tmp_path, 'bags/*/*'), digests(bagged, 'bags/*/*')
    assert len(first) == 3 and len(again) == 6 and again.items() >= first.items()


def test_a_bag_has_what_a_recorder_would_have_heard(bagged, small):
    wanted = {spec.topic if spec.topic.startswith('/') else f'/{spec.topic}': spec for spec in recorded_streams(small)}
    with BagReader(bag_folder(bagged, 0)) as bag:
        assert not bag.damage
        assert {topic for topic, spec in wanted.items() if spec.need.recorder is not Need.OPTIONAL} <= set(bag.topics)
        assert all(wanted[topic].type_name == found.type_name for topic, found in bag.topics.items())
        marks = [bag.decode(topic, raw).data for topic, _, raw in bag.messages({'/apt/episode'})]
        prompts = {bag.decode(topic, raw).data for topic, _, raw in
                   bag.messages({f'/{small.prompt_topic}', '/apt/active_prompt'})}
    assert marks == ['begin', 'end'] and len(prompts) == 1
    # An independent reader that relies on the metadata.
    with Reader(bag_folder(bagged, 0)) as reader:
        assert reader.message_count == sum(1 for _ in reader.messages())
        offered = {one.topic: one.ext.offered_qos_profiles[0] for one in reader.connections}
    assert {topic for topic, quality in offered.items() if quality.durability.value == 1} == {
        '/tf_static', '/apt/active_prompt'}
    assert {quality.depth for topic, quality in offered.items() if 'target' in topic} == {10}, 'a player loses none'


def test_the_converter_makes_the_same_episode_of_the_bag(bagged, converted, small):
    with Episode(episode_file(bagged, 0)) as made, Episode(converted) as heard:
        told, found = made.facts, heard.facts
        assert (found.arms, found.cameras, found.rate_hz, found.label_source, found.contract) == (
            told.arms, told.cameras, told.rate_hz, told.label_source, told.contract)
        assert len(found.prompts) == 1 and found.prompts[0] in told.prompts and not found.subtasks
        assert len(heard.timestamps) == len(made.timestamps) > 20
        np.testing.assert_allclose(np.diff(heard.timestamps), np.diff(made.timestamps), atol=1e-9)
        np.testing.assert_allclose(heard.desired_world_from_ee, made.desired_world_from_ee, atol=1e-9)
        np.testing.assert_allclose(heard.desired_gripper, made.desired_gripper, atol=1e-12)
        np.testing.assert_allclose(heard.gripper, made.gripper, atol=1e-9)
        assert_near(heard.world_from_ee, made.world_from_ee)


def test_the_converter_has_the_same_images_and_camera_poses(bagged, converted, small):
    with Episode(episode_file(bagged, 0)) as made, Episode(converted) as heard:
        for name in small.cameras:
            for index in range(len(made.timestamps)):
                view, seen = made.view(name, index), heard.view(name, index)
                assert np.abs(seen.rgb.astype(float) - view.rgb).mean() < GREY, f'{name}, frame {index}'
                np.testing.assert_allclose(seen.intrinsics, view.intrinsics, atol=1e-9)
                assert_near(seen.world_from_camera, view.world_from_camera)
        high = small.cameras['cam_high'].world_from_camera.matrix
        assert np.abs(heard.view('cam_high', 0).world_from_camera - high).max() > 1e-3, 'cameras stand elsewhere'


def test_a_bag_says_where_its_cameras_stood(bagged, small):
    placed = load_contract(bag_folder(bagged, 0) / CONTRACT)
    assert list(placed.cameras) == list(small.cameras) and list(placed.arms) == list(small.arms)
    assert placed.arms == small.arms and placed.policy_facts() == small.policy_facts()


def test_half_a_bag_is_made_again(bagged, tmp_path):
    shutil.copytree(bagged, tmp_path, dirs_exist_ok=True)
    bag, before = bag_folder(tmp_path, 0), digests(tmp_path, '**/*.*')
    (bag / 'metadata.yaml').unlink()
    left = bag.with_name(f'.episode_000000.t7.p{2**22 + 1}.partial')
    left.mkdir()
    (left / 'x').touch()
    assert not is_complete_bag(bag) and missing_episodes(tmp_path, 2, bags=1) == [0]
    assert sim_data.main(words(tmp_path, 2, '--bags', '1')) == 0
    assert digests(tmp_path, '**/*.*') == before and not left.exists()


def test_a_process_killed_in_the_midst_of_a_bag_leaves_none(bagged, tmp_path):
    shutil.copy(episode_file(bagged, 0), tmp_path)
    command = [sys.executable, '-c', 'import sys; from test_collector import settings; from pathlib import Path; '
               'from apt_sim.collect.collector import EpisodeCollector; '
               'EpisodeCollector(settings(action_noise=0.01), Path(sys.argv[1]), bags=1)(0)', str(tmp_path)]
    process = subprocess.Popen(command, env={**os.environ, 'PYTHONPATH': os.pathsep.join(
        [str(Path(__file__).parent), os.environ.get('PYTHONPATH', '')])})
    deadline = time.monotonic() + DEADLINE_S
    partial = tmp_path / 'bags' / f'.episode_000000.t{process.pid}.p{process.pid}.partial'
    while not list(partial.glob('*/*.mcap')) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait(DEADLINE_S) == -signal.SIGKILL
    assert partial.exists() and missing_episodes(tmp_path, 1, bags=1) == [0]
    with pytest.raises(ConvertError, match='is no bag'):
        bag_files(tmp_path / 'bags')
    remove_partial_files(tmp_path, process.pid)
    assert not list((tmp_path / 'bags').iterdir())


def test_a_full_disk_leaves_no_half_of_a_bag(tmp_path):
    limit = ('import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000)); '
             'import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); '
             'from apt_sim.collect.main import main; sys.exit(main(sys.argv[1:]))')
    done = subprocess.run([sys.executable, '-c', limit, *words(tmp_path, 1, '--bags', '1')], capture_output=True,
                          text=True, timeout=DEADLINE_S)
    said = ' '.join(done.stderr.split())
    assert done.returncode == 1 and 'File too large; the incomplete bag is removed' in said, said
    assert episode_file(tmp_path, 0).exists() and not list((tmp_path / 'bags').iterdir())


def test_more_bags_than_episodes_are_refused(tmp_path, capfd):
    assert sim_data.main(words(tmp_path / 'new', 3, '--bags', '5')) == 2
    said = ' '.join(capfd.readouterr().err.split())
    assert '--bags is 5, but the folder shall hold 3 episodes' in said and 'expected at most 3' in said
    assert not (tmp_path / 'new').exists()


def assert_near(poses, others):
    """Check that two poses differ by at most one physics step."""
    assert np.linalg.norm(poses[..., :3, 3] - others[..., :3, 3], axis=-1).max() < STEP_M
    assert np.max(angle_between(poses[..., :3, :3], others[..., :3, :3])) < STEP_RAD
