"""Draws from several datasets, and the processes that make batches of them."""

import json
import multiprocessing
import os
import signal
import threading
from collections import Counter

import h5py
import numpy as np
import pytest
import torch

from apt_training.data.augment import Augmentation
from apt_training.data.loader import DataLoadingError, MixtureLoader
from apt_training.data.mixture import BadFrameHandling, DrawBatchSampler, Mixture, MixtureComponent
from apt_training.episodes.episode import EpisodeError


@pytest.fixture
def mixture(make_dataset):
    """Two datasets, three to one."""
    often = make_dataset('often', 2, augmentation=Augmentation(crop=0.05), shuffle_cameras=True)
    return Mixture([MixtureComponent(dataset=often, weight=3.0),
                    MixtureComponent(dataset=make_dataset('seldom', 4), weight=1.0)], seed=7)


def take(loader, batches):
    return [next(loader) for _ in range(batches)]


def sources(batches):
    return [source for batch in batches for source in batch.sources]


def test_datasets_are_drawn_in_proportion_to_their_weights_for_any_size(mixture):
    files = Counter(mixture.describe_draw(draw).rpartition('/')[2] + mixture.describe_draw(draw)[:3]
                    for draw in range(4000))
    often = [count for name, count in files.items() if name.endswith('oft')]
    seldom = [count for name, count in files.items() if name.endswith('sel')]
    assert len(often) == 2 and len(seldom) == 4
    # Four standard deviations of a binomial.
    assert all(abs(count - 1500) < 4 * np.sqrt(4000 * 0.375 * 0.625) for count in often)
    assert all(abs(count - 250) < 4 * np.sqrt(4000 / 16) for count in seldom)


def test_a_draw_depends_on_seed_and_number_alone(make_dataset, mixture):
    again = Mixture(mixture.components, seed=7)
    for draw in (11, 3, 11):
        assert again[draw].source == mixture[draw].source
        assert np.array_equal(again[draw].rgb, mixture[draw].rgb)
    assert [Mixture(mixture.components, seed=8)[draw].source for draw in range(12)] != [
        mixture[draw].source for draw in range(12)]


def test_epochs_differ_and_are_as_long_as_there_are_episodes(mixture):
    assert len(mixture) == 6
    epochs = [tuple(mixture[draw].source for draw in range(first, first + 6)) for first in (0, 6, 12)]
    assert len(set(epochs)) == 3


@pytest.mark.parametrize('world', [2, 3])
def test_the_processes_together_make_the_row_that_one_makes(world):
    alone = DrawBatchSampler(6 * world)
    shares = [DrawBatchSampler(6, rank=rank, world_size=world) for rank in range(world)]
    for whole, *parts in zip(alone, *shares, range(5), strict=False):
        drawn = [draw for part in parts[:-1] for draw in part]
        assert sorted(drawn) == whole and len(set(drawn)) == len(drawn)
        # Sample k of the row is sample k // world of process k % world.
        assert [parts[k % world][k // world] for k in range(6 * world)] == whole


@pytest.mark.parametrize('workers', [0, 2])
def test_a_resumed_run_continues_at_the_exact_next_sample(mixture, workers):
    whole = MixtureLoader(mixture, 4, workers=workers)
    expected = take(whole, 5)
    first = MixtureLoader(mixture, 4, workers=workers)
    take(first, 2)
    state = json.loads(json.dumps(first.state_dict()))
    second = MixtureLoader(mixture, 4, workers=workers)
    second.load_state_dict(state)
    got = take(second, 3)
    assert sources(got) == sources(expected[2:])
    assert all(torch.equal(a.rgb, b.rgb) for a, b in zip(got, expected[2:], strict=True))
    for loader in (whole, first, second):
        loader.close()


def test_a_run_resumes_with_another_number_of_processes(mixture):
    row = sources(take(MixtureLoader(mixture, 12), 2))
    first = MixtureLoader(mixture, 6, rank=1, world_size=2)
    take(first, 1)
    resumed = [MixtureLoader(mixture, 4, rank=rank, world_size=3) for rank in range(3)]
    for loader in resumed:
        loader.load_state_dict(first.state_dict())
    assert Counter(sources([next(loader) for loader in resumed])) == Counter(row[12:])


def test_workers_change_nothing(mixture):
    plain, worked = MixtureLoader(mixture, 4), MixtureLoader(mixture, 4, workers=2)
    for here, there in zip(take(plain, 4), take(worked, 4), strict=True):
        assert here.sources == there.sources and torch.equal(here.rgb, there.rgb)
        np.testing.assert_array_equal(here.future, there.future)
    worked.close()


def test_the_state_of_another_mixture_is_refused(mixture):
    state = MixtureLoader(mixture, 4).state_dict()
    other = Mixture([MixtureComponent(dataset=mixture.components[0].dataset, weight=2.0)], seed=9)
    with pytest.raises(ValueError, match=r'another mixture; seed: was 7, is 9.*parts: was'):
        MixtureLoader(other, 4).load_state_dict(state)


def test_weights_that_make_no_mixture_are_refused(mixture):
    with pytest.raises(ValueError, match='weights above 0, got nothing'):
        Mixture([], seed=0)
    with pytest.raises(ValueError, match=r'weights above 0, got often: 0\.0'):
        Mixture([MixtureComponent(dataset=mixture.components[0].dataset, weight=0.0)], seed=0)


def spoil(file, frames):
    with h5py.File(file, 'r+') as opened:
        for frame in frames:
            opened['high/rgb'][frame] = opened['high/rgb'][frame][:50]


def test_a_bad_frame_is_replaced_named_and_counted(make_dataset, caplog):
    dataset = make_dataset(count=2)
    spoil(dataset.files[0], [4])
    mixture = Mixture([MixtureComponent(dataset=dataset, weight=1.0)], seed=1)
    batches = take(MixtureLoader(mixture, 8), 16)
    replaced = [text for batch in batches for text in batch.replaced]
    assert replaced and all('0.h5, high/rgb, frame 4: ' in text for text in replaced)
    assert 'small/0.h5:4' not in sources(batches) and 'another frame replaces it' in caplog.text
    assert sources(batches) == sources(take(MixtureLoader(mixture, 8), 16))


@pytest.mark.parametrize('workers', [0, 1])
def test_a_run_ends_when_too_many_frames_are_bad(make_dataset, workers):
    dataset = make_dataset(count=2)
    spoil(dataset.files[0], range(12))
    loader = MixtureLoader(Mixture([MixtureComponent(dataset=dataset, weight=1.0)], seed=1), 8, workers=workers)
    with pytest.raises(DataLoadingError,
                       match=r'1[1-9] of \d+ frames could not be read, more than 1%.*0\.h5, high/rgb'):
        take(loader, 20)
    loader.close()


def test_bad_frames_may_end_the_run_at_once(make_dataset):
    dataset = make_dataset(count=1)
    spoil(dataset.files[0], range(12))
    with pytest.raises(EpisodeError, match=r'0\.h5, high/rgb, frame'):
        Mixture([MixtureComponent(dataset=dataset, weight=1.0)], seed=1, bad_frames=BadFrameHandling.RAISE)[0]
    with pytest.raises(EpisodeError, match='8 frames in a row'):
        Mixture([MixtureComponent(dataset=dataset, weight=1.0)], seed=1)[0]


class StuckMixture(Mixture):
    """Something is wrong with its third batch of four."""

    trouble = 'hang'

    def __getitem__(self, draw):
        if draw >= 8:
            if self.trouble == 'die':
                os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()
        return super().__getitem__(draw)


@pytest.mark.parametrize('trouble', ['hang', 'die'])
def test_a_loading_process_that_hangs_or_dies_is_an_error_that_names_the_files(make_dataset, trouble):
    mixture = StuckMixture([MixtureComponent(dataset=make_dataset(count=2), weight=1.0)], seed=1)
    mixture.trouble = trouble
    loader = MixtureLoader(mixture, 4, workers=1, timeout_s=3.0)
    with pytest.raises(DataLoadingError, match=r'no batch arrived.*Files being read: small \(.*/small/[01]\.h5\)'):
        take(loader, 3)


def test_a_loading_process_that_dies_while_the_loader_closes_is_no_error(make_dataset):
    mixture = StuckMixture([MixtureComponent(dataset=make_dataset(count=2), weight=1.0)], seed=1)
    loader = MixtureLoader(mixture, 4, workers=1)
    take(loader, 2)
    worker, = multiprocessing.active_children()
    threading.Timer(0.5, worker.kill).start()
    loader.close()
    assert not worker.is_alive()


def test_a_timeout_without_workers_is_refused(mixture):
    with pytest.raises(ValueError, match='workers to 1 or more'):
        MixtureLoader(mixture, 4, timeout_s=1.0)
