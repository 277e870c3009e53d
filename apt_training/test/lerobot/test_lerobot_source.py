import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from apt_policy.cli import parse
from apt_policy.core.contract import contract_from_dict, contract_to_dict
from apt_policy.core.kinematics import forward_kinematics
from apt_training.convert.arguments import ConvertArguments
from apt_training.convert.lerobot import source as lerobot_source
from apt_training.convert.lerobot.files import LerobotError
from apt_training.convert.source import SkipEpisodeError
from apt_training.episodes.episode import LabelSource
from apt_training.episodes.read import Episode
from apt_training.episodes.write import EpisodeWriter


def arguments_of(*words):
    """Arguments of a command line whose contract and output play no part."""
    return parse(ConvertArguments, [*map(str, words), '--from', 'lerobot', '--contract', 'robot.yaml', '--out', 'out'],
                 program='apt-convert')


@pytest.fixture
def jobs(aloha, calibration_file):
    """Return a function that lists the jobs of a folder, with command-line flags and the shared calibration."""
    def cut(root, *flags, contract=aloha):
        given = list(map(str, flags))
        if not {'--intrinsics', '--fov'} & set(given):
            given += ['--intrinsics', str(calibration_file)]
        return lerobot_source.list_jobs(arguments_of(root, *given), contract)
    return cut


def streams_of(job, done=lambda _: False):
    return job.episodes(done, lambda share, frames: None)


def taken(job):
    """Return frames and facts of every episode."""
    return [(list(stream.frames()), stream.facts) for stream in streams_of(job)]


def colours(frame, camera):
    """Return the mean colour of the visible image."""
    view = frame.views[camera]
    return view.rgb[view.mask].mean(axis=0)


LAYOUTS = {'v2.0': {'version': 'v2.0'}, 'v2.1': {'version': 'v2.1'}, 'v3.0': {'version': 'v3.0'},
           'images inside': {'as_video': False}, 'v3 images inside': {'version': 'v3.0', 'as_video': False}}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_states_labels_and_pictures_are_found_in_every_layout(write_lerobot, jobs, aloha, layout, dataset):
    [job] = jobs(write_lerobot(**LAYOUTS[layout]))
    episodes = taken(job)
    assert [len(frames) for frames, _ in episodes] == [6, 5]
    kinematics = forward_kinematics(aloha)
    for episode, (frames, facts) in enumerate(episodes):
        assert facts.prompts == (('pick the cube', 'open the drawer')[episode],)
        assert facts.rate_hz == 10.0 and facts.label_source is LabelSource.JOINT_COMMANDS
        assert facts.contract == aloha.policy_facts()
        for tick, frame in enumerate(frames):
            row = 5 * tick
            state = np.array(dataset.state_of(episode, row, dataset.NAMES))
            wanted = np.array(dataset.state_of(episode, row, dataset.NAMES, ahead=0.05))
            for arm, (name, fields) in enumerate(aloha.arms.items()):
                base = fields.world_from_base.matrix
                at = slice(7 * arm, 7 * arm + 6)
                assert frame.world_from_ee[arm] == pytest.approx(base @ kinematics[name].base_from_ee(state[at]),
                                                                 abs=1e-6)
                assert frame.desired_world_from_ee[arm] == pytest.approx(
                    base @ kinematics[name].base_from_ee(wanted[at]), abs=1e-6)
            assert frame.gripper == pytest.approx(state[[6, 13]], abs=1e-6)
            assert frame.desired_gripper == pytest.approx(wanted[[6, 13]], abs=1e-6)
            assert frame.stamp_s == pytest.approx(row / 50)
            for place, camera in enumerate(dataset.CAMERAS):
                # Chroma subsampling and quantisation of H.264 cost a few levels; swapped channels would cost 100.
                assert colours(frame, camera) == pytest.approx(dataset.colour_of(place, row), abs=8)


def test_both_versions_of_one_dataset_give_the_same_frames(write_lerobot, jobs, dataset):
    [old], [new] = (jobs(write_lerobot(version, version=version, as_video=False)) for version in ('v2.1', 'v3.0'))
    for (frames, _), (others, _) in zip(taken(old), taken(new), strict=True):
        for frame, other in zip(frames, others, strict=True):
            assert np.array_equal(frame.world_from_ee, other.world_from_ee)
            assert all(np.array_equal(frame.views[name].rgb, other.views[name].rgb) for name in dataset.CAMERAS)


def test_av1_as_lerobot_encodes_by_default_is_read(write_lerobot, jobs, dataset):
    [job] = jobs(write_lerobot(codec='libsvtav1', cameras=('cam_high', 'cam_left_wrist', 'cam_right_wrist')))
    frames, _ = taken(job)[0]
    assert colours(frames[2], 'cam_high') == pytest.approx(dataset.colour_of(0, 10), abs=12)


def test_frames_become_an_episode_file(write_lerobot, jobs, tmp_path):
    [job] = jobs(write_lerobot())
    stream = next(streams_of(job))
    frames = list(stream.frames())
    with EpisodeWriter(tmp_path / 'episode.h5', stream.facts) as writer:
        for frame in frames:
            writer.append_frame(frame)
    with Episode(tmp_path / 'episode.h5') as episode:
        episode.check()
        assert len(episode) == len(frames) and episode.facts.prompts == ('pick the cube',)
        assert len(episode.facts.source_hash) == 64


def test_what_an_episode_is_made_of_is_hashed_and_nothing_else(write_lerobot, jobs):
    first, second = (next(streams_of(jobs(write_lerobot(name))[0])).facts.source_hash for name in ('a', 'b'))
    [changed] = jobs(write_lerobot('c', lengths=(25, 21)))
    assert first == second != next(streams_of(changed)).facts.source_hash


def test_intrinsics_follow_the_letterbox(write_lerobot, jobs, aloha, dataset):
    [job] = jobs(write_lerobot())
    view = taken(job)[0][0][0].views['cam_high']
    scale, top = aloha.image_size / dataset.SIDE[1], (aloha.image_size - 192) / 2
    # ROS counts from the centre of the first pixel, the suite from its corner.
    assert view.intrinsics == pytest.approx(np.array([[50 * scale, 0, 32 * scale], [0, 52 * scale, 24 * scale + top],
                                                      [0, 0, 1]]))


def test_a_field_of_view_is_the_angle_between_the_left_and_the_right_edge(write_lerobot, jobs, calibration_file):
    whole = yaml.safe_load(calibration_file.read_text())
    mounts = {name: whole[name] for name in ('cam_left_wrist', 'cam_right_wrist')}
    calibration_file.write_text(yaml.safe_dump(mounts))
    [job] = jobs(write_lerobot(), '--intrinsics', calibration_file, '--fov', 80)
    view = taken(job)[0][0][0].views['cam_high']
    left, right = (np.linalg.solve(view.intrinsics, [u, 128, 1])[0] for u in (0, 256))
    assert np.rad2deg(np.arctan(right) - np.arctan(left)) == pytest.approx(80)
    assert any('80 deg' in note and 'cam_high' in note for note in job.report().notes)


def test_a_wrist_camera_rides_on_its_arm(write_lerobot, jobs, calibration_file):
    mount = yaml.safe_load(calibration_file.read_text())['cam_right_wrist']['ee_from_camera']['translation']
    [job] = jobs(write_lerobot())
    for frame in taken(job)[0][0]:
        camera = frame.views['cam_right_wrist'].world_from_camera
        assert np.linalg.inv(frame.world_from_ee[1]) @ camera @ [0, 0, 0, 1] == pytest.approx([*mount, 1])


def test_columns_are_found_by_name_in_whatever_order_they_lie(write_lerobot, jobs, dataset):
    turned = [*dataset.NAMES[7:], *dataset.NAMES[:7]]
    [plain], [other] = (jobs(write_lerobot(str(i), names=[list(columns)], columns=columns))
                        for i, columns in enumerate((dataset.NAMES, turned)))
    for (frames, _), (others, _) in zip(taken(plain), taken(other), strict=True):
        assert all(np.array_equal(a.world_from_ee, b.world_from_ee) for a, b in zip(frames, others, strict=True))
    assert not [note for note in plain.report().notes if 'swapped' in note]
    assert [note for note in other.report().notes if 'right before left' in note and 'swapped' in note]


WAYS = {'by motor': lambda names: {'motors': names}, 'in a list': lambda names: names, 'not at all': lambda _: None,
        'with a slash': lambda names: [name.replace('_', '/', 1) for name in names],
        'as positions': lambda names: [f'{name}.pos' for name in names]}


@pytest.mark.parametrize('way', WAYS)
def test_names_may_be_written_in_all_ways_that_occur(write_lerobot, jobs, dataset, way):
    [job] = jobs(write_lerobot(names=WAYS[way](list(dataset.NAMES)), lengths=(6,), tasks=('go',)))
    assert taken(job)[0][0][1].gripper == pytest.approx([0.5, 0.5])


def test_a_map_names_columns_by_number_and_a_gripper_in_its_own_unit(write_lerobot, jobs, aloha, tmp_path, dataset):
    swapped = {'arms': {'left': {'joints': [7, 8, 9, 10, 11, 12], 'gripper': 13, 'gripper_open': 2.0},
                        'right': {'joints': [0, 1, 2, 3, 4, 5], 'gripper': 6, 'gripper_open': 2.0}},
               'cameras': {name: f'observation.images.{name}' for name in dataset.CAMERAS}, 'action': None}
    path = tmp_path / 'map.yaml'
    path.write_text(yaml.safe_dump(swapped))
    root = write_lerobot()
    [plain], [turned] = jobs(root), jobs(root, '--lerobot-map', path)
    (frames, _), (others, facts) = taken(plain)[0], taken(turned)[0]
    assert facts.label_source is LabelSource.MEASURED and others[0].desired_world_from_ee is None
    assert others[3].gripper == pytest.approx(frames[3].gripper[::-1] / 2)
    bases = [arm.world_from_base.matrix for arm in aloha.arms.values()]
    assert np.linalg.inv(bases[0]) @ others[3].world_from_ee[0] == pytest.approx(
        np.linalg.inv(bases[1]) @ frames[3].world_from_ee[1])


def test_a_camera_that_the_dataset_lacks_is_black_and_masked(write_lerobot, jobs):
    [job] = jobs(write_lerobot(cameras=('cam_high', 'cam_left_wrist', 'cam_right_wrist')))
    view = taken(job)[0][0][0].views['cam_low']
    assert not view.mask.any() and not view.rgb.any()
    assert any('cam_low' in note and 'not in the dataset' in note for note in job.report().notes)


def test_a_task_that_changes_midway_becomes_subtasks(write_lerobot, jobs):
    [job] = jobs(write_lerobot(task_change=12))
    facts = taken(job)[0][1]
    assert not facts.prompts
    assert [facts.prompt(0, frame) for frame in range(6)] == ['pick the cube'] * 3 + ['open the drawer'] * 3


def test_tasks_written_by_early_versions_of_v3_are_read(write_lerobot, jobs):
    [job] = jobs(write_lerobot(version='v3.0', unnamed_task_index=True))
    assert taken(job)[1][1].prompts == ('open the drawer',)


def test_all_rows_are_kept_where_the_rate_of_the_dataset_is_asked_for(write_lerobot, jobs, dataset):
    [job] = jobs(write_lerobot(), '--lerobot-rate', 50)
    frames, facts = taken(job)[0]
    assert len(frames) == 26 and facts.rate_hz == 50
    assert colours(frames[7], 'cam_high') == pytest.approx(dataset.colour_of(0, 7), abs=8)


def test_a_rate_that_does_not_divide_takes_the_newest_row_of_the_past(write_lerobot, jobs):
    [job] = jobs(write_lerobot(as_video=False), '--lerobot-rate', 30)
    frames, _ = taken(job)[0]
    rows = [int(np.floor(tick * 50 / 30 + 1e-6)) for tick in range(len(frames))]
    assert [round(float(colours(frame, 'cam_high')[0] - 40) / 4) for frame in frames] == rows


def test_a_unit_crosses_to_another_process_and_skips_what_is_there(write_lerobot, jobs):
    [job] = jobs(write_lerobot())
    job = pickle.loads(pickle.dumps(job))
    assert [stream.index for stream in streams_of(job, done=lambda index: index == 0)] == [1]


def test_identity_follows_the_files_and_the_settings(write_lerobot, jobs):
    root = write_lerobot()
    before = jobs(root)[0].identity()
    assert jobs(root)[0].identity() == before != jobs(root, '--lerobot-rate', 25)[0].identity()
    video = next(root.glob('videos/**/episode_000001.mp4'))
    video.write_bytes(video.read_bytes() + b'0')
    assert jobs(root)[0].identity() != before


def test_many_episodes_are_cut_into_units_that_cover_them_once(write_lerobot, jobs):
    root = write_lerobot(lengths=(2,) * 45, tasks=('go',) * 45, as_video=False)
    cut = jobs(root)
    assert [job.name for job in cut] == ['aloha_test-000000', 'aloha_test-000020', 'aloha_test-000040']
    assert [sum(1 for _ in streams_of(job)) for job in cut] == [20, 20, 5]


def test_two_folders_of_one_name_have_units_of_different_names(write_lerobot, aloha, calibration_file):
    roots = [write_lerobot(f'{place}/data', lengths=(2,), tasks=('go',)) for place in ('one', 'two')]
    cut = lerobot_source.list_jobs(arguments_of(*roots, '--intrinsics', calibration_file), aloha)
    assert len({job.name for job in cut}) == 2


# What users get wrong, and what time does to files.

def test_a_video_that_is_missing_costs_its_episode_and_is_named(write_lerobot, jobs):
    root = write_lerobot()
    video = root / 'videos/chunk-000/observation.images.cam_low/episode_000000.mp4'
    video.unlink()
    [job] = jobs(root)
    streams = streams_of(job)
    with pytest.raises(SkipEpisodeError, match=r'cam_low/episode_000000.mp4 is missing: copy the videos/'):
        list(next(streams).frames())
    assert len(list(next(streams).frames())) == 5
    assert str(video) in job.report().damage


def test_a_video_cut_off_is_named(write_lerobot, jobs):
    root = write_lerobot()
    video = root / 'videos/chunk-000/observation.images.cam_high/episode_000000.mp4'
    data = video.read_bytes()
    video.write_bytes(data[:len(data) // 2])
    with pytest.raises(SkipEpisodeError, match='cam_high/episode_000000.mp4'):
        list(next(streams_of(jobs(root)[0])).frames())


def test_a_video_of_another_rate_names_both_rates(write_lerobot, jobs):
    [job] = jobs(write_lerobot(video_fps=25))
    with pytest.raises(SkipEpisodeError, match=r'has 25 frames/s, expected the fps 50 of meta/info.json'):
        list(next(streams_of(job)).frames())


def test_rows_stamped_at_another_rate_name_the_row(write_lerobot, jobs):
    root = write_lerobot()
    info = root / 'meta/info.json'
    info.write_text(info.read_text().replace('"fps": 50', '"fps": 30', 1))
    expected = r'episode_000000.parquet: episode 0, row 25 is at 0.500 s, expected .* at the fps 30'
    with pytest.raises(SkipEpisodeError, match=expected):
        list(next(streams_of(jobs(root)[0])).frames())


def test_a_missing_feature_lists_what_there_is(write_lerobot, jobs, tmp_path, dataset):
    path = tmp_path / 'map.yaml'
    arm = {'joints': [0, 1, 2, 3, 4, 5], 'gripper': 6}
    path.write_text(yaml.safe_dump({'state': 'observation.qpos', 'arms': {'left': arm, 'right': arm},
                                    'cameras': dict.fromkeys(dataset.CAMERAS)}))
    with pytest.raises(LerobotError, match=r"no feature 'observation.qpos'; it has observation.state, action"):
        jobs(write_lerobot(), '--lerobot-map', path)


def test_a_column_that_is_not_there_lists_the_columns(write_lerobot, jobs, dataset):
    names = [name.replace('elbow', 'ellbow') for name in dataset.NAMES]
    with pytest.raises(LerobotError, match=r'no column for elbow of arm left; it has left_waist, .*--lerobot-map'):
        jobs(write_lerobot(names=[names]))


@pytest.mark.parametrize(('version', 'says'), [('v1.6', "codebase_version 'v1.6', expected v2.0, v2.1 or v3.x"),
                                               ('v4.0', "codebase_version 'v4.0'")])
def test_another_version_is_refused_by_its_name(write_lerobot, jobs, version, says):
    root = write_lerobot()
    info = root / 'meta/info.json'
    info.write_text(info.read_text().replace('v2.1', version))
    with pytest.raises(LerobotError, match=says):
        jobs(root)


def test_a_folder_that_is_no_dataset_is_named(jobs, tmp_path):
    with pytest.raises(LerobotError, match=r'cannot read .*meta/info.json: No such file .*with meta/'):
        jobs(tmp_path)


def test_cameras_without_intrinsics_are_refused_unless_a_field_of_view_is_assumed(write_lerobot, jobs, tmp_path):
    empty = tmp_path / 'none.yaml'
    empty.write_text('{}')
    with pytest.raises(LerobotError, match=r'cam_high has no intrinsics, .*--intrinsics.*--fov'):
        jobs(write_lerobot(), '--intrinsics', empty)


def test_a_moving_camera_without_a_mount_is_refused(write_lerobot, jobs):
    with pytest.raises(LerobotError, match=r'cam_left_wrist moves with arm left, .*ee_from_camera'):
        jobs(write_lerobot(), '--fov', 69)


def test_a_pinhole_of_other_proportions_is_refused(write_lerobot, jobs, calibration_file):
    calibration_file.write_text(calibration_file.read_text().replace('[64, 48]', '[64, 64]'))
    with pytest.raises(SkipEpisodeError, match=r'camera cam_high: calibrated with 64x64 px, the dataset has 64x48'):
        list(next(streams_of(jobs(write_lerobot())[0])).frames())


def test_a_wrong_field_of_the_intrinsics_file_is_named(write_lerobot, jobs, calibration_file):
    calibration_file.write_text('cam_high: {fx: 50.0}\ncam_low: {horizontal_fov: 3}\n')
    with pytest.raises(LerobotError) as error:
        jobs(write_lerobot())
    assert 'cam_high' in str(error.value) and 'cam_low.horizontal_fov' in str(error.value)


def test_a_reference_camera_that_the_dataset_lacks_is_refused(write_lerobot, jobs):
    with pytest.raises(LerobotError, match=r'lacks camera cam_left_wrist, a reference camera of arm left'):
        jobs(write_lerobot(cameras=('cam_high', 'cam_right_wrist')))


def test_a_contract_without_a_chain_is_refused(write_lerobot, jobs, aloha):
    facts = contract_to_dict(aloha)
    for arm in facts['arms'].values():
        arm['chain'] = None
    with pytest.raises(LerobotError, match=r'arms.left.chain is not in the contract'):
        jobs(write_lerobot(), contract=contract_from_dict(facts, source='test'))


def test_rows_that_are_not_finite_cost_their_episode(write_lerobot, jobs):
    [job] = jobs(write_lerobot(as_video=False))
    root = Path(job.path)
    rewrite(root / 'data/chunk-000/episode_000000.parquet', 'observation.state', row=3, value=float('nan'))
    with pytest.raises(SkipEpisodeError, match=r'episode 0, row 3: observation.state\[0\] is not finite'):
        list(next(streams_of(job)).frames())


def test_a_damaged_table_and_a_missing_one_are_named(write_lerobot, jobs):
    [job] = jobs(write_lerobot())
    tables = sorted(Path(job.path).glob('data/*/*.parquet'))
    tables[0].write_bytes(tables[0].read_bytes()[:200])
    tables[1].unlink()
    streams = streams_of(job)
    with pytest.raises(SkipEpisodeError, match=r'episode_000000.parquet cannot be read'):
        list(next(streams).frames())
    with pytest.raises(SkipEpisodeError, match=r'episode_000001.parquet is missing: copy the whole dataset'):
        list(next(streams).frames())


def test_a_rate_above_that_of_the_dataset_is_refused(write_lerobot, jobs):
    with pytest.raises(LerobotError, match=r'--lerobot-rate is 60 Hz, expected at most the 50 frames/s of'):
        jobs(write_lerobot(), '--lerobot-rate', 60)


def rewrite(path, column, *, row, value):
    """Change the first number of a row of a parquet file."""
    table = parquet.read_table(path)
    rows = table[column].to_pylist()
    rows[row][0] = value
    place = table.schema.get_field_index(column)
    parquet.write_table(table.set_column(place, column, pa.array(rows, table.schema.field(column).type)), path)
