import pytest

from apt_training.convert.main import main
from apt_training.episodes.read import Episode


@pytest.fixture
def convert(aloha_file, calibration_file, tmp_path):
    """Run the command in this process and return its exit status."""
    def run(root, *flags, out='episodes'):
        return main([str(root), '--from', 'lerobot', '--contract', str(aloha_file), '--out', str(tmp_path / out),
                     '--intrinsics', str(calibration_file), '--workers', '1', *flags])
    return run


def files_in(folder):
    return sorted(folder.glob('**/*.h5'))


def test_the_command_turns_a_dataset_into_episodes_and_a_contact_sheet(write_lerobot, convert, tmp_path, capsys):
    assert convert(write_lerobot()) == 0
    files = files_in(tmp_path / 'episodes')
    assert len(files) == 2 and (tmp_path / 'episodes/contact_sheet.png').exists()
    with Episode(files[1]) as episode:
        episode.check()
        assert episode.prompt(0) == 'open the drawer' and len(episode) == 5
    assert 'assumed' not in capsys.readouterr().err


def test_the_same_dataset_gives_the_same_bytes(write_lerobot, convert, tmp_path):
    root = write_lerobot()
    assert convert(root, '--no-sheet', out='one') == convert(root, '--no-sheet', out='two') == 0
    for one, two in zip(files_in(tmp_path / 'one'), files_in(tmp_path / 'two'), strict=True):
        assert one.name == two.name and one.read_bytes() == two.read_bytes()


def test_what_cannot_be_read_is_left_out_named_and_costs_the_status(write_lerobot, convert, tmp_path, capsys):
    root = write_lerobot()
    video = root / 'videos/chunk-000/observation.images.cam_low/episode_000000.mp4'
    hidden = video.rename(tmp_path / 'elsewhere.mp4')
    assert convert(root) == 1
    assert 'episode_000000.mp4 is missing' in capsys.readouterr().err
    assert len(files_in(tmp_path / 'episodes')) == 1
    hidden.rename(video)
    # The input is no longer what the episode that is there was made from.
    assert convert(root) == 1 and 'convert again with --force' in capsys.readouterr().err
    assert convert(root, '--force') == 0 and len(files_in(tmp_path / 'episodes')) == 2


def test_the_same_command_goes_on_where_episodes_are_missing(write_lerobot, convert, tmp_path):
    root = write_lerobot()
    assert convert(root) == 0
    first, second = files_in(tmp_path / 'episodes')
    before, inode = second.read_bytes(), first.stat().st_ino
    second.unlink()
    assert convert(root) == 0
    assert second.read_bytes() == before and first.stat().st_ino == inode


def test_mistakes_end_with_status_2_and_a_message(write_lerobot, convert, tmp_path, capsys):
    assert convert(tmp_path / 'nothing') == 2
    assert 'meta/info.json' in capsys.readouterr().err
    assert convert(write_lerobot(), '--lerobot-rate', '400') == 2
    assert '--lerobot-rate is 400 Hz' in capsys.readouterr().err
