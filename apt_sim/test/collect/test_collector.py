"""Collected episodes: correct, reproducible, and safe from other configurations."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from apt_policy.core.projection import project
from apt_sim.collect import main as sim_data
from apt_sim.collect.collector import CollectionConfig, EpisodeCollector
from apt_sim.collect.dataset import episode_file, missing_episodes, remove_partial_files
from apt_sim.collect.perturbations import RecoveryStart
from apt_sim.evaluation.rollout import RolloutPlan
from apt_sim.evaluation.splits import InstructionSplit, SplitError, parse_skills
from apt_sim.world.objects import OBJECT_COLOURS, object_spec
from apt_training.episodes.episode import LabelSource
from apt_training.episodes.read import Episode

CONTRACT = Path(__file__).parents[3] / 'apt_bringup' / 'config' / 'aloha_small.yaml'

DEADLINE_S = 120.0


def settings(**changes):
    plan = RolloutPlan(split=changes.pop('split', InstructionSplit.TRAIN), skills=parse_skills('pick'),
                       seed=changes.pop('seed', 0))
    return CollectionConfig(contract=str(CONTRACT), plan=plan, **changes)


def words(folder, episodes, *more):
    return ['--contract', str(CONTRACT), '--skills', 'pick', '--episodes', str(episodes), '--out', str(folder), *more]


def digests(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.glob('*.h5')}


@pytest.fixture(scope='module')
def disturbed(tmp_path_factory):
    """Collect three episodes with action noise in two processes."""
    folder = tmp_path_factory.mktemp('disturbed')
    assert sim_data.main(words(folder, 3, '--workers', '2', '--action-noise', '0.01')) == 0
    return folder


def test_the_bytes_do_not_depend_on_the_number_of_jobs(disturbed, tmp_path):
    collector = EpisodeCollector(settings(action_noise=0.01), tmp_path)
    made = [collector(number) for number in (2, 0, 1)]
    collector.close()
    assert digests(tmp_path) == digests(disturbed)
    assert [one.size for one in made] == [episode_file(disturbed, number).stat().st_size for number in (2, 0, 1)]


def test_an_episode_says_what_it_is(disturbed, small):
    with Episode(episode_file(disturbed, 0)) as episode:
        facts = episode.facts
        assert facts.arms == tuple(small.arms) and facts.cameras == tuple(small.cameras)
        assert facts.label_source is LabelSource.TARGETS and facts.rate_hz == pytest.approx(10.0)
        assert facts.contract == small.policy_facts() and len(facts.prompts) == 4
        np.testing.assert_allclose(np.diff(episode.timestamps), small.step_s, atol=1e-9)
        assert episode.view('cam_high', 0).rgb.shape == (small.image_size, small.image_size, 3)


def test_the_label_is_where_the_arm_shall_be_a_step_later(tmp_path):
    collector = EpisodeCollector(settings(), tmp_path)
    collector(0)
    collector.close()
    with Episode(episode_file(tmp_path, 0)) as episode:
        told, was = episode.desired_world_from_ee[:-1, :, :3, 3], episode.world_from_ee[1:, :, :3, 3]
        moved = np.linalg.norm(np.diff(episode.world_from_ee[:, :, :3, 3], axis=0), axis=-1).max()
        assert moved > 0.015
        assert np.linalg.norm(told - was, axis=-1).max() < 0.006
        assert episode.gripper[-1].min() < 0.8 and episode.desired_gripper[-1].min() == 0.0


def test_labels_of_a_demonstration_with_action_noise_lead_back_to_the_path(disturbed, tmp_path):
    with Episode(episode_file(disturbed, 0)) as episode:
        strayed = np.linalg.norm(episode.desired_world_from_ee[:-1, :, :3, 3] - episode.world_from_ee[1:, :, :3, 3],
                                 axis=-1)
    assert 0.006 < strayed.max() < 0.06


def test_a_recovery_demonstration_begins_beside_the_object_and_succeeds(tmp_path):
    collector = EpisodeCollector(settings(recovery_share=1.0), tmp_path)
    begun_closed = []
    fates = []
    for number in range(5):
        collector(number)
        fates.append(collector.recovery_start(number))
        with Episode(episode_file(tmp_path, number)) as episode:
            hand = int(episode.world_from_ee[0, :, 2, 3].argmin())
            told, opening = episode.desired_gripper[:, hand], episode.gripper[:, hand]
            place = episode.world_from_ee[:, hand, :3, 3]
        begun_closed.append(opening[0] < 0.3)
        assert begun_closed[-1] or opening[0] > 0.9, 'it has closed on nothing, or is open'
        grasp = place[np.flatnonzero(told[:-1] > told[1:])[0]]
        beside = np.linalg.norm(grasp[:2] - place[0, :2])
        assert place[0, 2] < 0.18 and 0.01 < beside < 0.1, 'it begins low, beside the grasp that follows'
        assert opening.max() > 0.9 and told[-1] == 0.0 and opening[-1] > 0.4, 'it ends with the thing in the hand'
        assert place[-1, 2] > 0.13
    collector.close()
    assert begun_closed == [recovery_start is RecoveryStart.CLOSED for recovery_start in fates]
    assert set(fates) == set(RecoveryStart)


def test_the_recovery_share_is_of_episodes_whatever_fails(tmp_path):
    collector = EpisodeCollector(settings(recovery_share=0.6), tmp_path)
    fates = [collector.recovery_start(number) for number in range(400)]
    collector.close()
    assert fates.count(None) == pytest.approx(160, abs=30)
    assert fates.count(RecoveryStart.CLOSED) == pytest.approx(120, abs=30)


def test_recovery_starts_depend_on_the_seed_and_on_the_episode(tmp_path):
    for folder in ('one', 'two'):
        collector = EpisodeCollector(settings(recovery_share=0.5), tmp_path / folder)
        fates = [collector.recovery_start(collector(number).number) for number in range(6)]
        collector.close()
    assert digests(tmp_path / 'one') == digests(tmp_path / 'two')
    for number, recovery_start in enumerate(fates):
        with Episode(episode_file(tmp_path / 'one', number)) as episode:
            assert (episode.world_from_ee[0, :, 2, 3].min() < 0.2) == (recovery_start is not None)
    assert 0 < fates.count(None) < 6


def test_cameras_are_where_the_file_says(tmp_path):
    """The instruction's object shows its colour where its pose is projected to."""
    collector = EpisodeCollector(settings(), tmp_path)
    hits = 0
    for number in range(4):
        _, scene, _ = collector._sampler.sample(collector._settings.plan, number)
        view = collector._views(collector._render())['cam_high']
        for name, pose in scene.objects.items():
            pixel = project(pose[None, :3, 3], view.intrinsics, view.world_from_camera)[0]
            column, row = np.floor(pixel).astype(int)
            seen = view.rgb[row, column] / max(1, view.rgb[row, column].max())
            true = np.array(OBJECT_COLOURS[object_spec(name).colour])
            hits += np.abs(seen - true / true.max()).max() < 0.35 or 'cup' in name
    collector.close()
    assert hits >= 18, f'{hits} of 20'


def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    command = [sys.executable, '-m', 'apt_sim.collect.main', *words(tmp_path, 40, '--workers', '1')]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + DEADLINE_S
    while len(missing_episodes(tmp_path, 40)) == 40 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130, said
    assert 'The same command resumes' in ' '.join(said.split())
    there = 40 - len(missing_episodes(tmp_path, 40))
    assert 0 < there < 40 and not list(tmp_path.glob('.*partial'))
    before = digests(tmp_path)
    assert sim_data.main(words(tmp_path, there + 1, '--workers', '1')) == 0
    assert len(digests(tmp_path)) == there + 1 and digests(tmp_path).items() >= before.items()


def test_a_process_that_is_killed_in_the_middle_of_a_file_costs_a_retry_and_no_byte(disturbed, tmp_path):
    command = [sys.executable, '-m', 'apt_sim.collect.main',
               *words(tmp_path, 3, '--workers', '2', '--action-noise', '0.01')]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + DEADLINE_S
    while not (half := list(tmp_path.glob('.*.partial'))) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    # The name of a temporary file contains the id of its process.
    os.kill(int(half[0].name.split('.')[-2].removeprefix('p')), signal.SIGKILL)
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, said
    assert digests(tmp_path) == digests(disturbed) and not list(tmp_path.glob('.*.partial'))


def test_what_a_killed_process_left_is_removed(tmp_path):
    for pid in (7, 77):
        (tmp_path / f'.episode_000000.h5.t{pid}.p{pid}.partial').touch()
    remove_partial_files(tmp_path, 7)
    assert [file.name for file in tmp_path.iterdir()] == ['.episode_000000.h5.t77.p77.partial']


def test_a_full_disk_is_named_and_leaves_nothing_half_written(tmp_path):
    limit = ('import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); '
             'import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); '
             'from apt_sim.collect.main import main; sys.exit(main(sys.argv[1:]))')
    done = subprocess.run([sys.executable, '-c', limit, *words(tmp_path, 2, '--workers', '1')], capture_output=True,
                          text=True, timeout=DEADLINE_S)
    assert done.returncode == 1 and 'Episodes that are whole stay' in ' '.join(done.stderr.split())
    assert not list(tmp_path.glob('*.h5')) and not list(tmp_path.glob('.*partial'))


def test_wrong_settings_are_refused_before_anything_is_made(tmp_path, capfd):
    with pytest.raises(SplitError, match='split is composed, whose scenes have two instructions'):
        CollectionConfig(contract=str(CONTRACT),
                         plan=RolloutPlan(split=InstructionSplit.COMPOSED, skills=parse_skills('pick,place')))
    with pytest.raises(ValueError, match='action_noise is 0.5 m'):
        settings(action_noise=0.5)
    with pytest.raises(ValueError, match=r'recovery_share is 1.5; expected a share, 0 \.\. 1'):
        settings(recovery_share=1.5)
    assert sim_data.main(words(tmp_path / 'new', 1, '--recovery-share', '-0.1')) == 2
    assert 'recovery_share is -0.1' in capfd.readouterr().err
    assert sim_data.main(words(tmp_path / 'new', 1, '--split', 'trian')) == 2
    assert "did you mean train?" in capfd.readouterr().err
    assert not (tmp_path / 'new').exists()
