"""From names and folders to a mixture."""

import shutil

import h5py
import numpy as np
import pytest

from apt_policy.core.contract import contract_from_dict, contract_to_dict
from apt_training.data.augment import Augmentation
from apt_training.data.dataset import DatasetMismatchError
from apt_training.data.locations import SHIPPED, LocationError, Locations
from apt_training.data.open_datasets import BadFileHandling, DataSource, SamplingConfig, open_mixture, parse_data_source
from apt_training.data.published import PRETRAINING, PUBLISHED, without_scene
from apt_training.data.sample import Window
from apt_training.episodes.episode import EpisodeError, ImageStorage
from apt_training.episodes.files import find_episodes


@pytest.fixture
def folder(tmp_path, write_episode):
    """Four episodes, one of them in a folder below."""
    for name in ('0.h5', '1.h5', '2.h5', 'more/3.h5'):
        write_episode(tmp_path / 'demos' / name, count=5)
    return tmp_path / 'demos'


def spoil(file):
    with h5py.File(file, 'r+') as opened:
        del opened['gripper']


def test_a_folder_is_a_dataset(folder):
    mixture = open_mixture([DataSource(name=str(folder))], seed=0, window=Window(image_size=32, horizon=4))
    names = {mixture[draw].source.rpartition(':')[0] for draw in range(40)}
    assert names == {'demos/0.h5', 'demos/1.h5', 'demos/2.h5', 'demos/more/3.h5'}


def test_a_file_is_a_dataset(folder):
    mixture = open_mixture([DataSource(name=str(folder / '1.h5'))], seed=0)
    assert mixture[0].source.startswith('1/1.h5:') and mixture[0].rgb.shape == (2, 256, 256, 3)


def test_a_contract_gives_window_cameras_and_reference_cameras(tmp_path, write_episode, aloha):
    small = contract_from_dict({**contract_to_dict(aloha), 'image_size': 32, 'horizon': 5}, source='test')
    changes = {'cameras': (*reversed(small.cameras), 'extra'), 'arms': tuple(small.arms)}
    write_episode(tmp_path / 'demos' / 'a.h5', changes=changes)
    mixture = open_mixture([DataSource(name=str(tmp_path / 'demos'))], seed=0, contract=small,
                           sampling=SamplingConfig(shuffle_cameras=False, augmentation=Augmentation()))
    sample = mixture[0]
    assert sample.cameras == tuple(small.cameras) and sample.rgb.shape == (4, 32, 32, 3)
    assert sample.future.shape == (5, 2, 17)
    left = [sample.world_from_camera[list(small.cameras).index(name)] for name in ('cam_left_wrist', 'cam_high')]
    assert any(np.array_equal(sample.world_from_reference[0], pose) for pose in left)


def test_episodes_of_another_robot_are_refused_with_what_they_have_and_what_the_contract_has(
        tmp_path, write_episode, aloha):
    for name in ('a.h5', 'b.h5'):
        write_episode(tmp_path / 'demos' / name, count=2)
    with pytest.raises(DatasetMismatchError) as caught:
        open_mixture([DataSource(name=str(tmp_path / 'demos'))], seed=0, contract=aloha)
    text = str(caught.value)
    assert 'dataset demos: 2 of 2 episodes do not fit the contract of robot aloha' in text
    assert f'2 have arms left, right; cameras high, wrist, for example {tmp_path}/demos/a.h5' in text
    assert f'expected: arms {", ".join(aloha.arms)}; cameras {", ".join(aloha.cameras)}' in text
    assert 'Give the contract that they were converted with' in text and 'Repair' not in text
    assert caught.value.facts.cameras == ('high', 'wrist')


def test_damaged_episodes_and_those_of_another_robot_are_distinguished(tmp_path, write_episode, aloha):
    fits = {'cameras': tuple(aloha.cameras), 'arms': tuple(aloha.arms)}
    for name, changes in (('damaged', fits), ('fits', fits), ('other', {}), ('one_arm', fits | {'arms': ('left',)})):
        write_episode(tmp_path / 'demos' / f'{name}.h5', count=2, changes=changes)
    spoil(tmp_path / 'demos' / 'damaged.h5')
    with pytest.raises(DatasetMismatchError) as caught:
        open_mixture([DataSource(name=str(tmp_path / 'demos'))], seed=0, contract=aloha)
    damaged, _, unfit = str(caught.value).partition('Repair or remove them')
    assert '1 of 4 episodes cannot be used' in damaged and 'damaged.h5' in damaged and 'other.h5' not in damaged
    assert '2 of 4 episodes do not fit the contract' in unfit and 'damaged.h5' not in unfit
    assert '1 have arms left; cameras cam_high' in unfit and 'one_arm.h5' in unfit and 'other.h5' in unfit


def test_a_published_dataset_with_other_cameras_points_to_its_folder(tmp_path, write_episode):
    write_episode(tmp_path / 'droid' / 'data' / 'a' / '0.h5', count=2)
    (tmp_path / 'places.yaml').write_text('Droid: droid\n')
    with pytest.raises(DatasetMismatchError, match=rf'expected: .*wrist_left\nCheck that {tmp_path}/droid is the'):
        open_mixture([DataSource(name='Droid')], seed=0, locations=Locations(tmp_path / 'places.yaml', {}))


def test_both_suffixes_are_episodes_and_hidden_files_are_none(tmp_path, write_episode):
    for name in ('a.h5', 'more/b.hdf5', '.hidden.hdf5'):
        write_episode(tmp_path / 'demos' / name, count=2)
    (tmp_path / 'demos' / 'notes.txt').write_text('not an episode')
    mixture = open_mixture([DataSource(name=str(tmp_path / 'demos'))], seed=0)
    assert [file.name for file in mixture.components[0].dataset.files] == ['a.h5', 'b.hdf5']
    alone = open_mixture([DataSource(name=str(tmp_path / 'demos' / 'more' / 'b.hdf5'))], seed=0)
    assert alone[0].source.startswith('b/b.hdf5:')
    files = mixture.components[0].dataset.files
    assert find_episodes([tmp_path / 'demos']) == files, 'apt-inspect sees what is trained on'


def test_every_bad_file_is_named_at_once(folder):
    for name in ('0.h5', 'more/3.h5'):
        spoil(folder / name)
    (folder / 'text.h5').write_text('no')
    with pytest.raises(EpisodeError) as caught:
        open_mixture([DataSource(name=str(folder))], seed=0)
    assert 'dataset demos: 3 of 5 episodes cannot be used' in str(caught.value)
    assert all(str(folder / name) in str(caught.value) for name in ('0.h5', 'more/3.h5', 'text.h5'))


def test_bad_files_may_be_skipped_and_are_counted(folder, caplog):
    spoil(folder / '0.h5')
    skip = SamplingConfig(bad_files=BadFileHandling.SKIP)
    mixture = open_mixture([DataSource(name=str(folder))], seed=0, sampling=skip)
    assert len(mixture) == 3 and '1 of 4 episodes cannot be used' in caplog.text
    for file in folder.rglob('*.h5'):
        file.write_text('no')
    with pytest.raises(EpisodeError, match='4 of 4'):
        open_mixture([DataSource(name=str(folder))], seed=0, sampling=skip)


def test_trusted_files_are_not_read_beforehand(folder):
    spoil(folder / '0.h5')
    trust = SamplingConfig(bad_files=BadFileHandling.TRUST)
    mixture = open_mixture([DataSource(name=str(folder))], seed=0, sampling=trust)
    assert len(mixture) == 4


def test_a_named_dataset_is_found_through_the_file_and_the_environment_goes_first(tmp_path, folder):
    file = tmp_path / 'locations.yaml'
    file.write_text('mine: demos\nDroid: null\n')
    shutil.copytree(folder, tmp_path / 'elsewhere')
    assert Locations(file, {}).find('mine').folder == folder
    moved = Locations(file, {'APT_DATA_MINE': str(tmp_path / 'elsewhere'), 'APT_DATA_MINE_VIDEOS': '/videos'})
    assert moved.find('mine').folder == tmp_path / 'elsewhere' and str(moved.find('mine').videos) == '/videos'
    mixture = open_mixture([DataSource(name='mine')], seed=0, locations=Locations(file, {}))
    assert mixture[0].source.startswith('mine/')


def test_a_dataset_that_is_not_here_names_the_file_and_the_variable(tmp_path):
    file = tmp_path / 'locations.yaml'
    file.write_text('Droid: null\nmine: nowhere\n')
    places = Locations(file, {})
    with pytest.raises(LocationError, match=r'add Droid: FOLDER to .*locations\.yaml, or set APT_DATA_DROID'):
        open_mixture([DataSource(name='Droid')], seed=0, locations=places)
    with pytest.raises(LocationError, match=r'mine: folder .*nowhere does not exist; .*locations\.yaml'):
        open_mixture([DataSource(name='mine')], seed=0, locations=places)
    with pytest.raises(LocationError, match='neither a folder nor a dataset; published datasets are Droid'):
        open_mixture([DataSource(name='out/none')], seed=0, locations=places)
    with pytest.raises(LocationError, match=r'no episode files \(.*\.h5 or \.hdf5\) below'):
        open_mixture([DataSource(name=str(tmp_path))], seed=0)


@pytest.mark.parametrize(('text', 'message'), [
    ('- a\n', 'list; expected a mapping'), ('a: [1]\n', r'a is \[1\]'), ('a: {b: c}\n', 'expected a folder'),
    ('a: b: c\n', 'not YAML')])
def test_a_wrong_locations_file_is_named(tmp_path, text, message):
    (tmp_path / 'bad.yaml').write_text(text)
    with pytest.raises(LocationError, match=rf'bad\.yaml.*{message}'):
        Locations(tmp_path / 'bad.yaml')
    with pytest.raises(LocationError, match=r'cannot read dataset locations .*none\.yaml'):
        Locations(tmp_path / 'none.yaml')


def test_two_datasets_of_one_name_are_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / 'b' / 'demos')
    with pytest.raises(ValueError, match='two datasets are named demos'):
        open_mixture([DataSource(name=str(folder)), DataSource(name=str(tmp_path / 'b' / 'demos'))], seed=0)


def test_the_shipped_file_knows_every_published_dataset():
    assert set(Locations(SHIPPED, {}).names) == set(PUBLISHED)
    assert {name for name, _ in PRETRAINING} <= set(PUBLISHED)
    assert sorted(weight for _, weight in PRETRAINING) == [2, 2, 2, 2, 2, 10, 10]


def test_a_published_dataset_opens_with_videos_below_its_folder(tmp_path, write_episode):
    spec = PUBLISHED['Droid']
    changes = {'cameras': spec.cameras, 'arms': ('arm',), 'rate_hz': 15.0}
    for name in ('episode_000001.h5', 'episode_11907.h5'):
        write_episode(tmp_path / 'data' / '00' / name, storage=ImageStorage.VIDEO, changes=changes)
    for video in (tmp_path / 'data' / '00').glob('*.mp4'):
        video.rename(tmp_path / video.name)
    mixture = open_mixture([DataSource(name='Droid')], seed=0, locations=Locations(
        None, {'APT_DATA_DROID': str(tmp_path)}), window=Window(image_size=32))
    assert len(mixture) == 1 and mixture[0].source.startswith('Droid/data/00/episode_000001.h5:')
    raw = tmp_path.with_name(tmp_path.name + '_raw') / 'lift2' / 'task'
    changes = {'cameras': PUBLISHED['InternA1Lift2'].cameras}
    write_episode(tmp_path / 'lift2' / 'task' / 'a.h5', storage=ImageStorage.VIDEO, changes=changes)
    raw.mkdir(parents=True)
    for video in (tmp_path / 'lift2' / 'task').glob('*.mp4'):
        video.rename(raw / video.name)
    mirrored = open_mixture([DataSource(name='InternA1Lift2')], seed=0, locations=Locations(
        None, {'APT_DATA_INTERNA1LIFT2': str(tmp_path)}), window=Window(image_size=32))
    assert mirrored[0].valid_arms.tolist() == [True, True]


def test_a_source_is_a_name_with_a_weight():
    assert parse_data_source('Droid=10') == DataSource(name='Droid', weight=10.0)
    assert parse_data_source('out/a=b=0.5') == DataSource(name='out/a=b', weight=0.5)
    assert parse_data_source('out/demos') == DataSource(name='out/demos')
    for bad in ('Droid=x', 'Droid=0', '=3'):
        with pytest.raises(ValueError, match='NAME=WEIGHT'):
            parse_data_source(bad)


def test_the_scene_is_cut_from_liberos_prompts():
    assert without_scene('LIVING ROOM SCENE6 put the mug down') == 'put the mug down'
    assert without_scene('open the drawer') == 'open the drawer'
